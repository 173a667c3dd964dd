"""A model's ridge alignments into any reference at any lambda, for what a study needs of them.

A study carries a direction over and pulls an axis back; a `RidgePath` gives both for every lambda
without forming weights, and the model's rows are decomposed once for all references.
"""

from __future__ import annotations

import numpy as np

from axes.analysis.methods.alignment import parts_of_rows
from axes.analysis.methods.ridge import LAMBDA_GRID, Mask, RidgePath, Spectrum
from axes.warehouse.scratch import Rows


class RidgePaths:
    """The paths of one model's first alignment rows, and the lambda of each.

    The lambda is chosen as `fit_alignment` chooses it, unless it is given.
    """

    def __init__(
        self,
        x: Rows,
        row_count: int | None = None,
        *,
        ridge_lambda: float | None = None,
        lambda_policy: str = "held_out",
        seed: int = 0,
    ) -> None:
        self._x, self._ridge_lambda, self._policy = x, ridge_lambda, lambda_policy
        count = len(x) if row_count is None else row_count
        self._parts = {
            name: np.concatenate([part, np.zeros(len(x) - count, dtype=bool)])
            for name, part in parts_of_rows(count, seed=seed).items()
        }
        self._spectra: dict[str, Spectrum] = {}

    def path(self, y: Rows) -> tuple[RidgePath, float]:
        """The path into the space of `y`, whose rows are paired with `x`, and its lambda."""
        chosen = self._ridge_lambda
        if chosen is None:
            if self._policy == "gcv":
                errors = self._path(y, "seen").cross_validated_errors()
            else:
                held_out: Mask = self._parts["held_out"]
                errors = self._path(y, "fitted").held_out_errors(self._x, y, held_out)
            chosen = LAMBDA_GRID[int(np.argmin(errors))]
        return self._path(y, "all"), chosen

    def _path(self, y: Rows, part: str) -> RidgePath:
        path = RidgePath.of_rows(self._x, y, self._parts[part], self._spectra.get(part))
        self._spectra[part] = path.spectrum
        return path
