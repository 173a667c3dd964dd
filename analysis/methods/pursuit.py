"""A direction as a sparse sum of features: orthogonal matching pursuit (Pati et al. 1993).

Each step adds the feature nearest to what is left, and refits the coefficients of all; the features
may be subtracted too. A large dictionary leaves little of any direction, so the same is done with
random ones. scikit-learn's `orthogonal_mp` does the pursuit.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from axes.warehouse.errors import NonFiniteError

_RANDOM_COUNT, _SEED = 10, 20_930_601
# What float32 leaves of a sum that is exact.
_NOTHING = 1e-10


@dataclass(frozen=True)
class FeatureShare:
    """A feature of a sum, in the order of the pursuit.

    `coefficient` is that of its unit vector in the final sum; `left` is the share of the
    direction's squared length outside of the features so far, `left_random` the mean share of
    random directions outside of as many features chosen for each.
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
    """The `count` features (or fewer, where these leave nothing) that a unit direction is made of.

    `rows` may have any length; rows of zeros are no features. Raises `NonFiniteError`.
    """
    lengths = np.linalg.norm(rows, axis=1)
    if not np.isfinite(lengths).all():
        raise NonFiniteError(
            f"row {np.flatnonzero(~np.isfinite(lengths))[0]} holds NaN or infinity"
        )
    features = np.flatnonzero(lengths)
    unit = rows[features] / lengths[features, None]
    count = min(count, *unit.shape)
    chosen, coefficients, left = _pursue(unit, direction, count)
    random = np.random.default_rng(_SEED).standard_normal((_RANDOM_COUNT, unit.shape[1]))
    drawn = [_pursue(unit, each / np.linalg.norm(each), count)[2] for each in random]
    # What ended early left nothing to pursue.
    shares = [[draw[min(step, len(draw) - 1)] for draw in drawn] for step in range(len(left))]
    return [
        FeatureShare(int(features[row]), float(coefficient), share, float(np.mean(random_shares)))
        for row, coefficient, share, random_shares in zip(
            chosen, coefficients, left, shares, strict=True
        )
    ]


def _pursue(
    unit: Float[np.ndarray, "feature d_model"], target: Float[np.ndarray, " d_model"], count: int
) -> tuple[list[int], Float[np.ndarray, " step"], list[float]]:
    """Rows in the order of the pursuit, their coefficients, and the share left by each step.

    The order is that of pursuits among the chosen rows alone, which choose alike.
    """
    found = np.flatnonzero(_coefficients(unit, target, count))
    chosen: list[int] = []
    left: list[float] = []
    weights = np.zeros(len(found))
    for size in range(1, len(found) + 1):
        weights = _coefficients(unit[found], target, size)
        chosen += [row for row in np.flatnonzero(weights).tolist() if row not in chosen]
        left.append(float(np.sum((target - weights @ unit[found]) ** 2)))
        if left[-1] < _NOTHING:
            break
    return found[chosen].tolist(), weights[chosen], left


def _coefficients(
    unit: Float[np.ndarray, "feature d_model"], target: Float[np.ndarray, " d_model"], count: int
) -> Float[np.ndarray, " feature"]:
    from sklearn.linear_model import orthogonal_mp

    with warnings.catch_warnings():
        # It warns where fewer features leave nothing.
        warnings.simplefilter("ignore", RuntimeWarning)
        solved = orthogonal_mp(unit.T, target.astype(unit.dtype), n_nonzero_coefs=count)
    return np.atleast_1d(solved)
