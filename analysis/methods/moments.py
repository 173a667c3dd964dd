"""Sums over pairs of rows: all that a least-squares map depends on, whatever the number of rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from jaxtyping import Bool, Float

from axes.analysis.blocks import blocks
from axes.warehouse.scratch import Rows


@dataclass(frozen=True)
class Moments:
    """Count, means, and sums of products about the means, of pairs `(x, y)`."""

    count: int
    mean_x: Float[np.ndarray, " d_model"]
    mean_y: Float[np.ndarray, " d_reference"]
    xx: Float[np.ndarray, "d_model d_model"]
    xy: Float[np.ndarray, "d_model d_reference"]
    yy: Float[np.ndarray, "d_reference d_reference"]


class MomentFitter:
    """Accumulates pairs; what is fitted from `moments()` needs no row again."""

    def __init__(self, d_model: int, d_reference: int) -> None:
        self.count = 0
        self._sum_x = np.zeros(d_model)
        self._sum_y = np.zeros(d_reference)
        self._xx = np.zeros((d_model, d_model))
        self._xy = np.zeros((d_model, d_reference))
        self._yy = np.zeros((d_reference, d_reference))
        self._shift: tuple[np.ndarray, np.ndarray] | None = None

    def update(
        self, x: Float[np.ndarray, "row d_model"], y: Float[np.ndarray, "row d_reference"]
    ) -> Self:
        """Add rows, in float64."""
        x, y = x.astype(np.float64), y.astype(np.float64)
        if self._shift is None:
            # Sums about a point near the mean: all activations share a large one, and taking it
            # away after summing squares would lose the digits that matter.
            self._shift = x.mean(axis=0), y.mean(axis=0)
        x -= self._shift[0]
        y -= self._shift[1]
        self.count += len(x)
        self._sum_x += x.sum(axis=0)
        self._sum_y += y.sum(axis=0)
        self._xx += x.T @ x
        self._xy += x.T @ y
        self._yy += y.T @ y
        return self

    def update_all(self, x: Rows, y: Rows, where: Bool[np.ndarray, " row"] | None = None) -> Self:
        """Add all rows, or those `where` is true, block by block."""
        for pair in blocks(x, y, where=where):
            self.update(*pair)
        return self

    def moments(self) -> Moments:
        """What the rows so far come to; raises `ValueError` where there are none."""
        if self._shift is None:
            raise ValueError("no rows were given")
        mean_x, mean_y = self._sum_x / self.count, self._sum_y / self.count
        return Moments(
            self.count,
            self._shift[0] + mean_x,
            self._shift[1] + mean_y,
            self._xx - self.count * np.outer(mean_x, mean_x),
            self._xy - self.count * np.outer(mean_x, mean_y),
            self._yy - self.count * np.outer(mean_y, mean_y),
        )


def cross_products(
    x: Rows,
    y: Rows,
    mean_x: Float[np.ndarray, " d_model"],
    mean_y: Float[np.ndarray, " d_reference"],
    *,
    where: Bool[np.ndarray, " row"] | None = None,
) -> Float[np.ndarray, "d_model d_reference"]:
    """Sum over the rows of `(x - mean_x)' (y - mean_y)`, in float64."""
    total = np.zeros((len(mean_x), len(mean_y)))
    for block, target in blocks(x, y, where=where):
        total += (block - mean_x).T @ (target - mean_y)
    return total
