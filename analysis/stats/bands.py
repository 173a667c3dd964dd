"""Curves over steps with a pointwise and a simultaneous bootstrap band.

The simultaneous band is the sup-t band: at every step the estimate plus and minus one multiple of
its bootstrap standard error, the multiple being the 95th percentile over resamples of the largest
studentised deviation of the whole curve (Montiel Olea and Plagborg-Møller 2019). With 95 %
confidence it holds the whole true curve, which the pointwise intervals do not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

# Of a class, completions that a step needs: with fewer a resample may have none.
LEAST_COMPLETIONS = 5


@dataclass(frozen=True)
class Curve:
    """One estimate a step: `[lower, upper]` pointwise, `[band_lower, band_upper]` for the whole.

    The counts are the completions that each step rests on.
    """

    steps: Int[np.ndarray, " step"]
    estimate: Float[np.ndarray, " step"]
    lower: Float[np.ndarray, " step"]
    upper: Float[np.ndarray, " step"]
    band_lower: Float[np.ndarray, " step"]
    band_upper: Float[np.ndarray, " step"]
    positive_counts: Int[np.ndarray, " step"]
    negative_counts: Int[np.ndarray, " step"]


def usable_steps(
    values: Float[np.ndarray, "row step"], is_positive: Bool[np.ndarray, " row"]
) -> Int[np.ndarray, " step"]:
    """The steps that `LEAST_COMPLETIONS` of each class reach."""
    there = ~np.isnan(values)
    counts = np.minimum(there[is_positive].sum(axis=0), there[~is_positive].sum(axis=0))
    return np.flatnonzero(counts >= LEAST_COMPLETIONS)


def mean_difference(
    values: Float[np.ndarray, "row step"],
    is_positive: Bool[np.ndarray, " row"],
    counts: Int[np.ndarray, "resample row"],
) -> Curve:
    """Mean of the positive class less that of the negative, step by step.

    A step's means are over the completions that reach it, so its rows differ from those of the
    step before where completions end.
    """
    steps = usable_steps(values, is_positive)
    there = ~np.isnan(values[:, steps])
    filled = np.nan_to_num(values[:, steps])

    def differences(drawn: Int[np.ndarray, "resample row"]) -> Float[np.ndarray, "resample step"]:
        means = []
        for of_class in (is_positive, ~is_positive):
            weights = drawn[:, of_class].astype(np.float64)
            reached = weights @ there[of_class]
            sums = weights @ filled[of_class]
            empty = np.full(sums.shape, np.nan)
            means.append(np.divide(sums, reached, where=reached > 0, out=empty))
        return means[0] - means[1]

    whole = differences(np.ones((1, len(is_positive)), dtype=np.int64))[0]
    tallies = (there[is_positive].sum(axis=0), there[~is_positive].sum(axis=0))
    return banded(steps, whole, differences(counts), *tallies)


def banded(
    steps: Int[np.ndarray, " step"],
    estimate: Float[np.ndarray, " step"],
    resampled: Float[np.ndarray, "resample step"],
    positive_counts: Int[np.ndarray, " step"],
    negative_counts: Int[np.ndarray, " step"],
    *,
    level: float = 0.95,
) -> Curve:
    """The curve with both bands from its resamples."""
    if not len(steps):
        nothing = np.empty(0)
        return Curve(steps, *(nothing,) * 5, positive_counts, negative_counts)
    tail = (1 - level) / 2
    lower, upper = np.nanquantile(resampled, [tail, 1 - tail], axis=0)
    deviation = np.nanstd(resampled, axis=0)
    missing = np.full(resampled.shape, np.nan)
    distances = np.divide(np.abs(resampled - estimate), deviation, where=deviation > 0, out=missing)
    # A curve without any spread has a band of no width.
    distances[:, deviation == 0] = 0.0
    reach = np.nanquantile(np.nanmax(distances, axis=1), level) * deviation
    return Curve(
        steps,
        estimate,
        lower,
        upper,
        estimate - reach,
        estimate + reach,
        positive_counts,
        negative_counts,
    )
