"""Statistics of trajectories: how early the classes separate, slopes within completions, jumps.

A completion that has ended keeps its last running mean, so that every step is evaluated on the same
completions and the curve does not move because short ones leave it. A class's slope is a ratio of
sums over completions, so it is computed for all bootstrap resamples at once. docs/methods.md
(Drift) has the formulas, their sources, and what the p-value of a jump does not say.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from axes.analysis.stats.auroc import Estimate
from axes.analysis.stats.bootstrap import Curve, banded, percentile_interval, resampled_aurocs
from axes.warehouse.render import finite

# AUROC from which the classes count as separated: three of four pairs are in the right order.
BOUND = 0.75


def running_means(values: Float[np.ndarray, "row step"]) -> Float[np.ndarray, "row step"]:
    """Mean over the steps so far, carried on past a completion's end.

    >>> running_means(np.array([[0.0, 2.0, 4.0], [1.0, 3.0, np.nan]]))
    array([[0., 1., 2.],
           [1., 2., 2.]])
    """
    is_step = ~np.isnan(values)
    return np.nan_to_num(values).cumsum(axis=1) / is_step.cumsum(axis=1)


def running_aurocs(
    values: Float[np.ndarray, "row step"],
    is_positive: Bool[np.ndarray, " row"],
    counts: Int[np.ndarray, "resample row"],
) -> tuple[Curve, Float[np.ndarray, "resample step"]]:
    """The curve of AUROC over steps, and its resamples."""
    running = running_means(values)
    whole = resampled_aurocs(running, is_positive, np.ones((1, len(running)), dtype=np.int64))[0]
    resampled = resampled_aurocs(running, is_positive, counts)
    steps = np.arange(values.shape[1])
    positive_counts = np.full(len(steps), is_positive.sum())
    negative_counts = np.full(len(steps), (~is_positive).sum())
    curve = banded(steps, whole, resampled, positive_counts, negative_counts)
    return curve, resampled


def decided_step(
    curve: Curve, resampled: Float[np.ndarray, "resample step"], *, bound: float = BOUND
) -> Estimate | None:
    """The first step from which AUROC stays at or above `bound`; None where it does not.

    An end of the interval is None where that share of the resamples is never decided.
    """
    first = _first_to_stay(curve.estimate[None] >= bound)[0]
    if not np.isfinite(first):
        return None
    tails = np.quantile(_first_to_stay(resampled >= bound), [0.025, 0.975], method="higher")
    return Estimate(float(first), *finite(tails.tolist()))


def lead(
    events: Float[np.ndarray, " row"],
    curve: Curve,
    resampled: Float[np.ndarray, "resample step"],
    counts: Int[np.ndarray, "resample row"],
    *,
    bound: float = BOUND,
) -> Estimate | None:
    """Median tokens from the decided step to a completion's event; negative: it comes too late.

    `events` is the step of each completion's event, NaN for one without. The interval resamples the
    completions, those of the curve included. None where nothing is decided.
    """
    decided = decided_step(curve, resampled, bound=bound)
    has_event = ~np.isnan(events)
    if decided is None or not has_event.any():
        return None
    steps = events[has_event]
    firsts = _first_to_stay(resampled >= bound)
    medians = [
        float(np.median(np.repeat(steps, drawn))) - first
        for drawn, first in zip(counts[:, has_event], firsts, strict=True)
        if drawn.sum()
    ]
    # Undecided resamples are the worst case: infinitely late.
    tails = np.quantile(medians, [0.025, 0.975], method="lower")
    return Estimate(float(np.median(steps)) - decided.estimate, *finite(tails.tolist()))


def event_steps(
    texts: Sequence[Sequence[str]], pattern: str | None, is_positive: Bool[np.ndarray, " row"]
) -> Float[np.ndarray, " row"]:
    """The step of each completion's event, NaN for one without.

    With a `pattern` (a regular expression, whatever the case) it is the token where its first match
    begins; without, the last token of a completion of the positive class.
    """
    if pattern is None:
        return np.array(
            [
                len(tokens) - 1 if positive else np.nan
                for tokens, positive in zip(texts, is_positive, strict=True)
            ]
        )
    expression = re.compile(pattern, re.IGNORECASE)
    return np.array([_matched_step(tokens, expression) for tokens in texts])


def _matched_step(tokens: Sequence[str], expression: re.Pattern[str]) -> float:
    match = expression.search("".join(tokens))
    if match is None:
        return np.nan
    ends = np.cumsum([len(token) for token in tokens])
    return float(np.searchsorted(ends, match.start(), side="right"))


def _first_to_stay(holds: Bool[np.ndarray, "curve step"]) -> Float[np.ndarray, " curve"]:
    """First step of the run of True that lasts to the end; infinity where the last is False."""
    stays = np.logical_and.accumulate(holds[:, ::-1], axis=1)[:, ::-1]
    return np.where(stays.any(axis=1), stays.argmax(axis=1), np.inf)


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
    is_step = ~np.isnan(values)
    steps = np.arange(values.shape[1])
    counts = is_step.sum(axis=1, keepdims=True)
    middles = (is_step * steps).sum(axis=1, keepdims=True) / np.maximum(counts, 1)
    return np.where(is_step, steps - middles, 0.0)


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
    slopes = np.full((len(counts), 3), np.nan)
    for column, of_class in enumerate((is_positive, ~is_positive)):
        drawn = counts[:, of_class]
        spread = drawn @ terms.spread[of_class]
        rise = drawn @ terms.rise[of_class]
        np.divide(rise, spread, where=spread > 0, out=slopes[:, column])
    slopes[:, 2] = slopes[:, 0] - slopes[:, 1]
    return slopes


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
