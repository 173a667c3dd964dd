"""Ridge alignments for many lambdas and references from one eigendecomposition of a model's rows.

What a study needs of a map is a direction carried over and an axis pulled back. With centred Gram
sums `S_xx = U diag(s) U'` and `A = U' S_xy` these are products with `A`, so that the weights
`U diag(1 / (s + lambda)) A` are never formed; and the squared error on held-out rows is
`tr(S_yy) - 2 sum_i D_i q_i + D' (B * C) D` with `D = 1 / (s + lambda)`, where `B`, `C` and `q` are
shared by all lambdas. U is the same for every reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float

from analysis.blocks import blocks, mean
from analysis.ridge import LAMBDA_GRID
from analysis.splits import held_out_mask
from warehouse.scratch import Rows

_FRACTION = 0.2


@dataclass(frozen=True)
class RidgePath:
    """The maps of a model into one reference for every lambda, intercepts left out."""

    values: Float[np.ndarray, " rank"]
    vectors: Float[np.ndarray, "d_model rank"]
    rotated: Float[np.ndarray, "rank d_reference"]

    def carry(
        self, direction: Float[np.ndarray, " d_model"], ridge_lambda: float
    ) -> Float[np.ndarray, " d_reference"]:
        """A direction in the reference's space."""
        return (direction @ self.vectors / (self.values + ridge_lambda)) @ self.rotated

    def pull_back(
        self, axis: Float[np.ndarray, " d_reference"], ridge_lambda: float
    ) -> Float[np.ndarray, " d_model"]:
        """`v` so that `align(x) @ axis` is `x @ v` and a constant."""
        return self.vectors @ (self.rotated @ axis / (self.values + ridge_lambda))


class Spectrum:
    """The eigendecomposition of the centred rows of `x` that `fitted` is true for."""

    def __init__(
        self,
        x: Rows,
        fitted: Bool[np.ndarray, " row"],
        held_out: Bool[np.ndarray, " row"] | None = None,
    ) -> None:
        self._x, self._fitted, self._held_out = x, fitted, held_out
        self._mean = mean(x, fitted)
        if fitted.sum() < x.shape[1]:
            # Fewer rows than dimensions: the same from the small matrix of inner products.
            rows = np.concatenate([block for (block,) in blocks(x, where=fitted)])
            rows = rows.astype(np.float64) - self._mean
            values, left = np.linalg.eigh(rows @ rows.T)
            live = values > values[-1] * len(values) * np.finfo(np.float64).eps
            self.values = values[live]
            self.vectors = rows.T @ left[:, live] / np.sqrt(self.values)
        else:
            values, self.vectors = np.linalg.eigh(self._products(x, self._mean, fitted))
            self.values = values.clip(min=0.0)

    def path(self, y: Rows) -> RidgePath:
        """The maps into the space of `y`, whose rows are paired with those of `x`."""
        cross = self._products(y, mean(y, self._fitted), self._fitted)
        return RidgePath(self.values, self.vectors, self.vectors.T @ cross)

    def errors(
        self, path: RidgePath, y: Rows, lambdas: Sequence[float]
    ) -> Float[np.ndarray, " ridge_lambda"]:
        """Squared error of each map on the held-out rows, over all dimensions together."""
        assert self._held_out is not None
        mean_y = mean(y, self._fitted)
        spread = sum(
            float(np.square(block - mean_y).sum()) for (block,) in blocks(y, where=self._held_out)
        )
        crossed = self.vectors.T @ self._products(y, mean_y, self._held_out)
        linear = (path.rotated * crossed).sum(axis=1)
        quadratic = self._held_out_gram * (path.rotated @ path.rotated.T)
        shrunk = [1 / (self.values + ridge_lambda) for ridge_lambda in lambdas]
        return np.array([spread - 2 * one @ linear + one @ quadratic @ one for one in shrunk])

    @cached_property
    def _held_out_gram(self) -> Float[np.ndarray, "rank rank"]:
        assert self._held_out is not None
        gram = self._products(self._x, self._mean, self._held_out)
        return self.vectors.T @ gram @ self.vectors

    def _products(
        self, y: Rows, mean_y: Float[np.ndarray, " d"], where: Bool[np.ndarray, " row"]
    ) -> Float[np.ndarray, "d_model d"]:
        """Sum over the rows of `(x - mean)' (y - mean)`, in float64."""
        total = np.zeros((self._x.shape[1], len(mean_y)))
        for block, target in blocks(self._x, y, where=where):
            total += (block - self._mean).T @ (target - mean_y)
        return total


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

    def path(self, y: Rows) -> tuple[RidgePath, float]:
        """The path into the space of `y`, and its lambda."""
        chosen = self._ridge_lambda
        if chosen is None:
            training = self._training
            errors = training.errors(training.path(y), y, LAMBDA_GRID)
            chosen = LAMBDA_GRID[int(np.argmin(errors))]
        return self._whole.path(y), chosen

    @cached_property
    def _whole(self) -> Spectrum:
        return Spectrum(self._x, self._used)

    @cached_property
    def _training(self) -> Spectrum:
        """Without the rows that R2 is judged on; a part of the rest is held out for lambda."""
        seen, held_out = self._used.copy(), np.zeros_like(self._used)
        judged = held_out_mask(int(seen.sum()), fraction=_FRACTION, seed=self._seed)
        seen[np.flatnonzero(seen)[judged]] = False
        held = held_out_mask(int(seen.sum()), fraction=_FRACTION, seed=self._seed + 1)
        held_out[np.flatnonzero(seen)[held]] = True
        return Spectrum(self._x, seen & ~held_out, held_out)
