"""One axis out of many models' aligned directions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

METHODS = ("svd", "mean")


@dataclass(frozen=True)
class UniversalAxis:
    """The axis; `weights` make it out of the directions: `weights @ directions == vector`."""

    vector: Float[np.ndarray, " d_model"]
    singular_values: Float[np.ndarray, " component"]
    weights: Float[np.ndarray, " model"]


def universal_axis(
    directions: Float[np.ndarray, "model d_model"], method: str = "svd"
) -> UniversalAxis:
    """The axis shared by unit directions, which are not centred (that would take it away).

    `svd`: the first right singular vector, the axis with the largest sum of squared cosines, which
    a model that points the other way supports as well; its sign is fixed so that the mean inner
    product with the directions is positive. `mean`: their mean scaled to unit length, the axis with
    the largest sum of cosines, in which such a model takes away from the others. With k directions
    all alike the first singular value is sqrt(k).
    """
    left, singular_values, right = np.linalg.svd(directions, full_matrices=False)
    weights = left[:, 0] / singular_values[0]
    if method == "mean":
        length = float(np.linalg.norm(directions.sum(axis=0)))
        weights = np.full(len(directions), 1 / length if length else 0.0)
    sign = 1.0 if (directions @ right[0]).mean() >= 0 or method == "mean" else -1.0
    axis = right[0] if method == "svd" else weights @ directions
    return UniversalAxis(sign * axis, singular_values, sign * weights)


def singular_value_gap(singular_values: Float[np.ndarray, "*draw component"]) -> np.ndarray:
    """The first singular value less the second: what the models share beyond the next thing.

    >>> float(singular_value_gap(np.array([2.0, 0.5, 0.1])))
    1.5
    """
    return singular_values[..., 0] - singular_values[..., 1]
