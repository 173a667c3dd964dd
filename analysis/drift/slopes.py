"""Drift as a slope: how fast projections move over the steps within completions, by class.

A class's slope is that of one least-squares line with an intercept for every completion (the within
estimator), so what lifts a whole completion does not count and a short completion, whose own slope
is mostly noise, weighs as little as it says. It is a ratio of sums over completions, so it is
computed for all bootstrap resamples at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from axes.analysis.stats.auroc import Estimate
from axes.analysis.stats.bootstrap import percentile_interval


@dataclass(frozen=True)
class SlopeTerms:
    """Per completion the sums of which slopes are ratios: `rise / spread` is its own slope."""

    rise: Float[np.ndarray, " row"]
    spread: Float[np.ndarray, " row"]

    @property
    def slopes(self) -> Float[np.ndarray, " row"]:
        """Each completion's own slope; NaN for one with a single step."""
        missing = np.full(len(self.rise), np.nan)
        return np.divide(self.rise, self.spread, where=self.spread > 0, out=missing)


def centred_steps(values: Float[np.ndarray, "row step"]) -> Float[np.ndarray, "row step"]:
    """Each completion's steps about their mean, 0 where it has no value."""
    there = ~np.isnan(values)
    steps = np.arange(values.shape[1])
    counts = there.sum(axis=1, keepdims=True)
    middles = (there * steps).sum(axis=1, keepdims=True) / np.maximum(counts, 1)
    return np.where(there, steps - middles, 0.0)


def slope_terms(values: Float[np.ndarray, "row step"]) -> SlopeTerms:
    """The sums of each completion's line; `values` is NaN where a completion has no step.

    >>> slope_terms(np.array([[0.0, 2.0, 4.0], [1.0, 0.0, np.nan]])).slopes
    array([ 2., -1.])
    """
    centred = centred_steps(values)
    rise = (centred * np.nan_to_num(values)).sum(axis=1)
    return SlopeTerms(rise, np.square(centred).sum(axis=1))


def class_slopes(
    terms: SlopeTerms,
    is_positive: Bool[np.ndarray, " row"],
    counts: Int[np.ndarray, "resample row"],
) -> Float[np.ndarray, "resample slope"]:
    """Slope of the positive class, of the negative class, and the first minus the second.

    NaN where a resample holds no completion of two steps of a class.
    """
    found = np.full((len(counts), 3), np.nan)
    for column, of_class in enumerate((is_positive, ~is_positive)):
        drawn = counts[:, of_class]
        spread = drawn @ terms.spread[of_class]
        rise = drawn @ terms.rise[of_class]
        np.divide(rise, spread, where=spread > 0, out=found[:, column])
    found[:, 2] = found[:, 0] - found[:, 1]
    return found


def slope_estimates(
    terms: SlopeTerms,
    is_positive: Bool[np.ndarray, " row"],
    counts: Int[np.ndarray, "resample row"],
) -> tuple[Estimate, Estimate, Estimate]:
    """The three of `class_slopes` with intervals, tested against 0."""
    whole = class_slopes(terms, is_positive, np.ones((1, len(is_positive)), dtype=np.int64))[0]
    resampled = class_slopes(terms, is_positive, counts)
    positive, negative, difference = (
        percentile_interval(float(estimate), drawn, is_tested=True)
        for estimate, drawn in zip(whole, resampled.T, strict=True)
    )
    return positive, negative, difference
