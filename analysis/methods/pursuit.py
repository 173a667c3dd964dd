"""A direction as a sparse sum of features: orthogonal matching pursuit (Pati et al. 1993).

Each step adds the feature nearest to what is left and refits all coefficients, which may be
negative. A large dictionary leaves little of any direction, so random ones are pursued too.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from axes.warehouse.errors import NonFiniteError

_RANDOM_COUNT, _SEED = 10, 20_930_601
# What float32 leaves of a sum that is exact.
_NOTHING = 1e-10


class FeatureShare(NamedTuple):
    """A feature in the order of the pursuit, and the coefficient of its unit vector in the sum.

    `left` is the share of the direction's squared length outside of the features so far,
    `left_random` the mean of that over random directions, each with features of its own.
    """

    feature: int
    coefficient: float
    left: float
    left_random: float


def decompose(
    rows: Float[np.ndarray, "feature d_model"],
    direction: Float[np.ndarray, " d_model"],
    count: int,
) -> list[FeatureShare]:
    """The `count` features (fewer, where these leave nothing) that a unit direction is made of.

    `rows` may have any length; rows of zeros are no features. Raises `NonFiniteError`.
    """
    lengths = np.linalg.norm(rows, axis=1)
    if not np.isfinite(lengths).all():
        raise NonFiniteError(
            f"row {np.flatnonzero(~np.isfinite(lengths))[0]} holds NaN or infinity"
        )
    features = np.flatnonzero(lengths)
    if not len(features):
        return []
    unit = rows[features] / lengths[features, None]
    count = min(count, *unit.shape)
    chosen, coefficients, left = _pursue(unit, direction, count)
    random = np.random.default_rng(_SEED).standard_normal((_RANDOM_COUNT, unit.shape[1]))
    drawn = [_pursue(unit, each / np.linalg.norm(each), count)[2] for each in random]
    null = [
        float(np.mean([each[min(step, len(each) - 1)] for each in drawn]))
        for step in range(len(chosen))
    ]
    columns = zip(features[chosen].tolist(), coefficients.tolist(), left, null, strict=True)
    return [FeatureShare(*row) for row in columns]


def _pursue(
    unit: Float[np.ndarray, "feature d_model"], target: Float[np.ndarray, " d_model"], count: int
) -> tuple[list[int], Float[np.ndarray, " step"], list[float]]:
    """Rows in the order of the pursuit, their coefficients, and the share left by each step.

    The order is that of pursuits among the chosen rows alone, which choose alike.
    """
    from sklearn.linear_model import orthogonal_mp

    chosen: list[int] = []
    left: list[float] = []
    with warnings.catch_warnings():
        # It warns where fewer features leave nothing.
        warnings.simplefilter("ignore", RuntimeWarning)
        target = target.astype(unit.dtype)
        found = np.flatnonzero(orthogonal_mp(unit.T, target, n_nonzero_coefs=count))
        while len(left) < len(found) and (not left or left[-1] >= _NOTHING):
            solved = orthogonal_mp(unit[found].T, target, n_nonzero_coefs=len(left) + 1)
            weights = np.atleast_1d(solved)
            chosen += [row for row in np.flatnonzero(weights).tolist() if row not in chosen]
            left.append(float(np.sum((target - weights @ unit[found]) ** 2)))
    return found[chosen].tolist(), weights[chosen], left
