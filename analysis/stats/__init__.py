"""Statistics by name: calibrations of scores, and corrections of several p-values.

Names load without numpy; see `axes.analysis.methods`, whose tables work alike.
"""

from __future__ import annotations

# (scores, labels) -> the parameters of a non-decreasing map into 0 ... 1.
CALIBRATIONS: dict[str, str] = {
    "platt": "axes.analysis.stats.calibration:platt",
    "isotonic": "axes.analysis.stats.calibration:isotonic",
    "quantile": "axes.analysis.stats.calibration:quantile",
    "z_score": "axes.analysis.stats.calibration:z_score",
}

# Ascending p-values -> adjusted ones, in the same order.
CORRECTIONS: dict[str, str] = {
    "holm": "axes.analysis.stats.multiple_testing:holm",
    "benjamini_hochberg": "axes.analysis.stats.multiple_testing:benjamini_hochberg",
}
