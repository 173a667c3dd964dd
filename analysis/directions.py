"""Directions that tell the positive class from the negative: the positive one projects higher."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from analysis.blocks import mean
from warehouse.errors import AxisError
from warehouse.scratch import Rows


@dataclass(frozen=True)
class Direction:
    """A unit vector and the norm that it had."""

    vector: Float[np.ndarray, " d_model"]
    raw_norm: float


def difference_in_means(x: Rows, labels: Bool[np.ndarray, " row"]) -> Direction:
    """Mean of the positive rows minus mean of the negative ones, in float64 (Rimsky et al. 2024).

    >>> difference_in_means(np.array([[0.0, 1.0], [3.0, 5.0]]), np.array([False, True])).raw_norm
    5.0
    """
    # Means in float64: residual norms reach 1e4 and the difference is small beside them.
    return unit(mean(x, labels) - mean(x, ~labels))


def unit(vector: Float[np.ndarray, " d_model"]) -> Direction:
    """Scale to unit length; raises `AxisError` for the zero vector."""
    norm = float(np.linalg.norm(vector))
    if norm == 0.0:
        raise AxisError("the direction is zero: the two classes have the same mean")
    return Direction(vector / norm, norm)
