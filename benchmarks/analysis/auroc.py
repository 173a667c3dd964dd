"""1,000 bootstrap resamples of an AUROC, against a loop over scikit-learn's `roc_auc_score`.

Both draw within classes. The loop is timed on the same 1,000 resamples, whose rows it is given, so
that drawing them costs it nothing; the library's time holds its own drawing.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from sklearn.metrics import roc_auc_score

from axes.analysis.stats.bootstrap import auroc_bootstrap, draw_counts, resampled_auroc
from benchmarks.run import Figure, alternate, median_figure, ratios, seconds

ROWS, RESAMPLES, ROUNDS = 600, 1_000, 3
FASTER, APART = 50.0, 1e-12


def measure(rows: int = ROWS, resamples: int = RESAMPLES, rounds: int = ROUNDS) -> Iterator[Figure]:
    """Times as fast as the loop, and the largest difference of a resample's AUROC."""
    random = np.random.default_rng(0)
    labels = np.arange(rows) % 2 == 0
    # Rounded, so that there are ties.
    scores = (random.standard_normal(rows) + labels).round(1)
    counts = draw_counts(rows, strata=labels, count=resamples)
    drawn = [np.repeat(np.arange(rows), count) for count in counts]
    found: dict[str, np.ndarray] = {}

    def loop() -> None:
        found["loop"] = np.array([roc_auc_score(labels[row], scores[row]) for row in drawn])

    def ours() -> None:
        auroc_bootstrap(scores, labels, draw_counts(len(labels), strata=labels, count=resamples))

    ours_seconds, loop_seconds = alternate(rounds, lambda: seconds(ours), lambda: seconds(loop))
    conditions = f"{rows} scores with ties, {resamples:,} resamples"
    faster = ratios(loop_seconds, ours_seconds)
    yield median_figure("auroc bootstrap: loop / ours", faster, FASTER, "higher", conditions)
    apart = np.abs(resampled_auroc(scores, labels, counts) - found["loop"]).max()
    yield Figure("auroc bootstrap: resamples apart", float(apart), APART, "lower")
