"""Pairs of a positive and a negative row that are alike in one number.

Optimal matching without replacement: the total distance is least (Rosenbaum 1989), and no pair is
farther apart than the caliper (0.2 standard deviations; Rosenbaum and Rubin 1985, Austin 2011).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment

CALIPER = 0.2


def match(
    values: Float[np.ndarray, " row"],
    is_positive: Bool[np.ndarray, " row"],
    *,
    caliper: float = CALIPER,
) -> Int[np.ndarray, "pair 2"]:
    """The matched rows, the positive one first; as many pairs as the caliper allows.

    `caliper` is in standard deviations within classes.

    >>> match(np.array([0.0, 5.0, 5.1, 9.0]), np.array([True, True, False, False])).tolist()
    [[1, 2]]
    """
    positive, negative = np.flatnonzero(is_positive), np.flatnonzero(~is_positive)
    if not len(positive) or not len(negative):
        return np.empty((0, 2), dtype=np.int64)
    reach = caliper * _within_deviation(values[positive], values[negative])
    distances = np.abs(values[positive][:, None] - values[negative])
    # Farther than all allowed distances together, so that the most pairs come first.
    too_far = (reach + 1) * (min(len(positive), len(negative)) + 1)
    first, second = linear_sum_assignment(np.where(distances <= reach, distances, too_far))
    near = distances[first, second] <= reach
    return np.stack([positive[first[near]], negative[second[near]]], axis=1)


def standardised_difference(
    values: Float[np.ndarray, " row"], is_positive: Bool[np.ndarray, " row"]
) -> float:
    """Mean of the positive rows less that of the others, in standard deviations within classes."""
    positive, negative = values[is_positive], values[~is_positive]
    width = _within_deviation(positive, negative)
    return float((positive.mean() - negative.mean()) / width) if width > 0 else 0.0


def _within_deviation(
    positive: Float[np.ndarray, " row"], negative: Float[np.ndarray, " row"]
) -> float:
    return float(np.sqrt((positive.var() + negative.var()) / 2))
