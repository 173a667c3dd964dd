"""One axis out of many models' aligned directions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from axes.analysis.methods import UNIVERSALS, find_method, load
from axes.warehouse.errors import AxisError

# Inner products with unit directions that are as far from zero as rounding takes them.
TIE = 1e-6


@dataclass(frozen=True)
class UniversalAxis:
    """The axis; `weights` make it out of the directions: `weights @ directions == vector`."""

    vector: Float[np.ndarray, "*draw d_model"]
    singular_values: Float[np.ndarray, "*draw component"]
    weights: Float[np.ndarray, "*draw model"]


def universal_axis(
    directions: Float[np.ndarray, "*draw model d_model"], method: str = "svd"
) -> UniversalAxis:
    """The axis shared by unit directions, which are not centred (that would take it away).

    Of several draws of the directions, one axis for each.
    """
    return load(find_method("universal axis", UNIVERSALS, method, AxisError))(directions)


def leave_one_out_axes(
    directions: Float[np.ndarray, "*draw model d_model"], method: str = "svd"
) -> list[Float[np.ndarray, "*draw d_model"]]:
    """For each of the directions the axis shared by all others."""
    return [
        universal_axis(np.delete(directions, index, axis=-2), method).vector
        for index in range(directions.shape[-2])
    ]


def leading_direction(directions: Float[np.ndarray, "*draw model d_model"]) -> UniversalAxis:
    """The first right singular vector: the axis with the largest sum of squared cosines.

    A model that points the other way supports it as well. Its sign is fixed so that the mean inner
    product with the directions is positive, or that with the first one where the mean is zero: of
    two directions with a negative cosine it always is. With k directions all alike the first
    singular value is sqrt(k). Of no directions at all (zeros) the axis is zero.
    """
    # By the products of the directions, which are few: much faster than an SVD of many draws.
    _, left = np.linalg.eigh(directions @ directions.swapaxes(-1, -2))
    left = left[..., ::-1][..., : directions.shape[-1]]
    components = left.swapaxes(-1, -2) @ directions
    singular_values = np.linalg.norm(components, axis=-1)
    length = singular_values[..., :1]
    scale = np.divide(1.0, length, where=length > 0, out=np.zeros_like(length))
    axis = scale * components[..., 0, :]
    along = directions @ axis[..., None]
    mean = along.mean(axis=-2)
    sign = np.where(np.where(abs(mean) > TIE, mean, along[..., 0, :]) >= 0, 1.0, -1.0)
    return UniversalAxis(sign * axis, singular_values, sign * scale * left[..., 0])


def mean_direction(directions: Float[np.ndarray, "*draw model d_model"]) -> UniversalAxis:
    """The mean scaled to unit length: the axis with the largest sum of cosines.

    A model that points the other way takes away from the others.
    """
    singular_values = np.linalg.svd(directions, compute_uv=False)
    total = directions.sum(axis=-2)
    length = np.linalg.norm(total, axis=-1, keepdims=True)
    weight = np.divide(1.0, length, where=length > 0, out=np.zeros_like(length))
    weights = np.repeat(weight, directions.shape[-2], axis=-1)
    return UniversalAxis(weight * total, singular_values, weights)


def singular_value_gap(singular_values: Float[np.ndarray, "*draw component"]) -> np.ndarray:
    """The first singular value less the second: how far the shared axis stands out.

    >>> float(singular_value_gap(np.array([2.0, 0.5, 0.1])))
    1.5
    """
    return singular_values[..., 0] - singular_values[..., 1]
