"""A linear map from one model's space into a reference's, fitted on benign prompts, no labels.

Ridge regression with a free intercept on raw features: minimise
`sum |x W + b - y|^2 + lambda |W|^2`. With centred Gram sums `S_xx`, `S_xy` the weights are
`W = (S_xx + lambda I)^-1 S_xy`; one eigendecomposition of `S_xx` gives the whole lambda path
(Hoerl and Kennard 1970). The fitter streams, so rows never have to fit in memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from analysis.blocks import blocks, mean
from analysis.splits import held_out_mask
from warehouse.scratch import Rows

# Ten to the -2, -1.5, ..., 8: lambda is in squared units of the activations.
LAMBDA_GRID = tuple(float(value) for value in np.logspace(-2, 8, 21))

_HELD_OUT_FRACTION = 0.2


@dataclass(frozen=True)
class Alignment:
    """The map `x -> x W + b`; `ridge_lambda` is None for the identity."""

    weights: Float[np.ndarray, "d_model d_reference"]
    intercept: Float[np.ndarray, " d_reference"]
    ridge_lambda: float | None

    def apply(self, x: Float[np.ndarray, "row d_model"]) -> Float[np.ndarray, "row d_reference"]:
        """Activations in the reference's space."""
        return x @ self.weights + self.intercept

    def carry(self, direction: Float[np.ndarray, " d_model"]) -> Float[np.ndarray, " d_reference"]:
        """A direction (a difference of activations, so without the intercept) in that space."""
        return direction @ self.weights

    def pull_back(
        self, axis: Float[np.ndarray, " d_reference"]
    ) -> tuple[Float[np.ndarray, " d_model"], float]:
        """`(v, c)` so that `apply(x) @ axis == x @ v + c`."""
        return self.weights @ axis, float(self.intercept @ axis)


@dataclass(frozen=True)
class AlignmentFit:
    """An alignment fitted on all rows, and how the same procedure did on rows it had not seen."""

    alignment: Alignment
    r2_held_out: float
    r2_uniform: float
    is_lambda_given: bool


class RidgeFitter:
    """Accumulates Gram sums of pairs `(x, y)`; `solve` gives the map for a lambda."""

    def __init__(self, d_model: int, d_reference: int) -> None:
        self.row_count = 0
        self._sum_x = np.zeros(d_model)
        self._sum_y = np.zeros(d_reference)
        self._xx = np.zeros((d_model, d_model))
        self._xy = np.zeros((d_model, d_reference))
        self._shift: tuple[np.ndarray, np.ndarray] | None = None
        self._spectrum: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None

    def update(
        self, x: Float[np.ndarray, "row d_model"], y: Float[np.ndarray, "row d_reference"]
    ) -> RidgeFitter:
        """Add rows, in float64."""
        x, y = x.astype(np.float64), y.astype(np.float64)
        if self._shift is None:
            # Sums about a point near the mean: all activations share a large one, and taking it
            # away after summing squares would lose the digits that matter.
            self._shift = x.mean(axis=0), y.mean(axis=0)
        x, y = x - self._shift[0], y - self._shift[1]
        self.row_count += len(x)
        self._sum_x += x.sum(axis=0)
        self._sum_y += y.sum(axis=0)
        self._xx += x.T @ x
        self._xy += x.T @ y
        self._spectrum = None
        return self

    def solve(self, ridge_lambda: float) -> Alignment:
        """The minimiser for one lambda; the eigendecomposition is done once and kept."""
        if self._shift is None:
            raise ValueError("no rows were given")
        mean_x, mean_y = self._sum_x / self.row_count, self._sum_y / self.row_count
        if self._spectrum is None:
            centred = self._xx - self.row_count * np.outer(mean_x, mean_x)
            values, vectors = np.linalg.eigh(centred)
            rotated = vectors.T @ (self._xy - self.row_count * np.outer(mean_x, mean_y))
            self._spectrum = values.clip(min=0.0), vectors, rotated
        values, vectors, rotated = self._spectrum
        weights = vectors @ (rotated / (values + ridge_lambda)[:, None])
        intercept = self._shift[1] + mean_y - (self._shift[0] + mean_x) @ weights
        return Alignment(weights, intercept, ridge_lambda)


def fit_alignment(
    x: Rows, y: Rows, *, ridge_lambda: float | None = None, seed: int = 0
) -> AlignmentFit:
    """Fit the map on paired rows; choose lambda on held-out rows unless it is given.

    R2 is judged on a fifth of the rows that neither the fit nor the choice of lambda has seen; the
    map that is returned is then fitted on all rows.
    """
    judged = held_out_mask(len(x), fraction=_HELD_OUT_FRACTION, seed=seed)
    chosen = choose_lambda(x, y, seed=seed, where=~judged) if ridge_lambda is None else ridge_lambda
    on_seen = _fitter(x, y, ~judged).solve(chosen)
    total, uniform = r_squared(on_seen, x, y, mean(y, ~judged), where=judged)
    return AlignmentFit(_fitter(x, y).solve(chosen), total, uniform, ridge_lambda is not None)


def identity_alignment(d_model: int) -> AlignmentFit:
    """The reference's own map."""
    return AlignmentFit(Alignment(np.eye(d_model), np.zeros(d_model), None), 1.0, 1.0, True)


def choose_lambda(
    x: Rows, y: Rows, *, seed: int = 0, where: Bool[np.ndarray, " row"] | None = None
) -> float:
    """The lambda of `LAMBDA_GRID` with the least squared error on a held-out fifth of the rows.

    `where` says which rows there are at all; default all.
    """
    used = np.ones(len(x), dtype=bool) if where is None else where
    held_out = np.zeros(len(x), dtype=bool)
    held_out[used] = held_out_mask(int(used.sum()), fraction=_HELD_OUT_FRACTION, seed=seed + 1)
    fitter = _fitter(x, y, used & ~held_out)
    errors = [
        squared_errors(fitter.solve(value), x, y, where=held_out).sum() for value in LAMBDA_GRID
    ]
    return LAMBDA_GRID[int(np.argmin(errors))]


def r_squared(
    alignment: Alignment,
    x: Rows,
    y: Rows,
    baseline: Float[np.ndarray, " d_reference"],
    *,
    where: Bool[np.ndarray, " row"] | None = None,
) -> tuple[float, float]:
    """`1 - SSE/SST` over all dimensions together, and its mean over dimensions.

    SST is about `baseline`, the mean of the rows fitted on. The first is what ridge minimises and
    is ruled by dimensions of large variance; the second weighs every dimension alike.
    """
    errors = squared_errors(alignment, x, y, where=where)
    constant = Alignment(np.zeros_like(alignment.weights), baseline, None)
    spread = squared_errors(constant, x, y, where=where)
    live = spread > 0
    return float(1 - errors.sum() / spread.sum()), float(1 - (errors[live] / spread[live]).mean())


def squared_errors(
    alignment: Alignment, x: Rows, y: Rows, *, where: Bool[np.ndarray, " row"] | None = None
) -> Float[np.ndarray, " d_reference"]:
    """Sum over the rows of `(align(x) - y)^2`, for each dimension of the reference."""
    total = np.zeros(y.shape[1])
    for block, target in blocks(x, y, where=where):
        total += np.square(alignment.apply(block) - target).sum(axis=0, dtype=np.float64)
    return total


def _fitter(x: Rows, y: Rows, where: Bool[np.ndarray, " row"] | None = None) -> RidgeFitter:
    fitter = RidgeFitter(x.shape[1], y.shape[1])
    for pair in blocks(x, y, where=where):
        fitter.update(*pair)
    return fitter
