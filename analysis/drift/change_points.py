"""Where a completion's projection jumps: the one split into two constant means of least squares.

Every split is tried, so the fit is exact. The p-value is the share of random orders of the same
values whose best split is at least as good: under it steps are exchangeable, so a series that
wanders slowly is also found to have changed. Sources: least squares, Sen and Srivastava 1975; by
permutation, Antoch and Hušková 2001.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

PERMUTATION_COUNT = 499


@dataclass(frozen=True)
class ChangePoint:
    """`step` is the first of the second part; `size` is its mean less that of the first part."""

    step: int
    size: float
    p_value: float


def change_point(
    values: Float[np.ndarray, " step"], *, count: int = PERMUTATION_COUNT, seed: int = 0
) -> ChangePoint | None:
    """The best split of a series with its p-value; None for a single value or where all are one.

    >>> change_point(np.array([0.0, 0.1, 0.0, 0.1, 5.0, 5.1, 5.0])).step
    4
    """
    if len(values) < 2 or np.ptp(values) == 0:
        return None
    gains = _gains(values[None])[0]
    step = int(gains.argmax()) + 1
    random = np.random.default_rng(seed)
    shuffled = random.permuted(np.broadcast_to(values, (count, len(values))), axis=1)
    # Equal values give equal gains up to rounding.
    as_good = (_gains(shuffled).max(axis=1) >= gains.max() * (1 - 1e-12)).sum()
    size = float(values[step:].mean() - values[:step].mean())
    return ChangePoint(step, size, (int(as_good) + 1) / (count + 1))


def _gains(series: Float[np.ndarray, "series step"]) -> Float[np.ndarray, "series split"]:
    """Squared error that each split takes away: `(sum of the first part)^2 n / (k (n - k))`.

    Sums are of the values about their mean.
    """
    count = series.shape[1]
    centred = series - series.mean(axis=1, keepdims=True)
    sums = centred.cumsum(axis=1)[:, :-1]
    first = np.arange(1, count)
    return np.square(sums) * count / (first * (count - first))
