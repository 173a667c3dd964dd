"""Ridge alignments of one model into many references, from two eigendecompositions of its rows.

What a study needs of a map is a direction carried over and an axis pulled back; a path gives both
for every lambda without forming weights. The decompositions do not depend on the reference.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from jaxtyping import Bool

from analysis.ridge import LAMBDA_GRID, RidgePath, Spectrum
from analysis.splits import held_out_mask
from warehouse.scratch import Rows

_FRACTION = 0.2

Mask = Bool[np.ndarray, " row"]


class RidgePaths:
    """The paths of one model's alignment rows into any reference, and the lambda of each.

    The lambda is chosen as `fit_alignment` chooses it, unless it is given.
    """

    def __init__(
        self,
        x: Rows,
        row_count: int | None = None,
        *,
        ridge_lambda: float | None = None,
        seed: int = 0,
    ) -> None:
        self._x, self._ridge_lambda, self._seed = x, ridge_lambda, seed
        self._used = np.arange(len(x)) < (len(x) if row_count is None else row_count)
        self._spectra: dict[str, Spectrum] = {}

    def path(self, y: Rows) -> tuple[RidgePath, float]:
        """The path into the space of `y`, whose rows are paired with those of `x`; its lambda."""
        chosen = self._ridge_lambda
        if chosen is None:
            fitted, held_out = self._training
            training = self._fit(y, "training", fitted)
            errors = training.held_out_errors(self._x, y, held_out)
            chosen = LAMBDA_GRID[int(np.argmin(errors))]
        return self._fit(y, "whole", self._used), chosen

    def _fit(self, y: Rows, part: str, where: Mask) -> RidgePath:
        path = RidgePath.of_rows(self._x, y, where, self._spectra.get(part))
        self._spectra[part] = path.spectrum
        return path

    @cached_property
    def _training(self) -> tuple[Mask, Mask]:
        """Without the rows that R2 is judged on; a part of the rest is held out for lambda."""
        seen, held_out = self._used.copy(), np.zeros_like(self._used)
        judged = held_out_mask(int(seen.sum()), fraction=_FRACTION, seed=self._seed)
        seen[np.flatnonzero(seen)[judged]] = False
        held = held_out_mask(int(seen.sum()), fraction=_FRACTION, seed=self._seed + 1)
        held_out[np.flatnonzero(seen)[held]] = True
        return seen & ~held_out, held_out
