"""Bootstrap intervals: rows drawn with replacement, within classes and in whole groups.

A resample is how often each row was drawn, so a statistic is a function of weights and is computed
for all resamples at once. Two scorers evaluated on the same resamples give a paired difference
(Efron and Tibshirani 1993). Curves over steps have a pointwise interval and a sup-t band, which
holds the complete true curve with 95 % confidence (Montiel Olea and Plagborg-Møller 2019).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from axes.analysis.stats.auroc import Estimate, Groups, Labels, Scores, auroc, share_estimate

RESAMPLE_COUNT = 1000
_LEVEL = 0.95
_TAILS = ((1 - _LEVEL) / 2, 1 - (1 - _LEVEL) / 2)


def auroc_bootstrap(
    scores: Scores, labels: Labels, counts: Int[np.ndarray, "resample row"]
) -> Estimate:
    """AUROC with the percentile interval of resamples (`draw_counts`)."""
    return percentile_interval(auroc(scores, labels), resampled_auroc(scores, labels, counts))


def auroc_difference_bootstrap(
    first: Scores, second: Scores, labels: Labels, counts: Int[np.ndarray, "resample row"]
) -> Estimate:
    """AUROC of `first` minus that of `second` on the same resamples; p-value two-sided."""
    resampled = resampled_auroc(first, labels, counts) - resampled_auroc(second, labels, counts)
    difference = auroc(first, labels) - auroc(second, labels)
    return percentile_interval(difference, resampled, is_tested=True)


def draw_counts(
    row_count: int,
    *,
    strata: np.ndarray | None = None,
    groups: Groups | None = None,
    count: int = RESAMPLE_COUNT,
    seed: int = 0,
) -> Int[np.ndarray, "resample row"]:
    """How often each row is drawn in each of `count` resamples; seeded.

    Every stratum (class) keeps its number of rows. With `groups`, groups are drawn whole, and keep
    their number among those that lie in the same strata: pairs of both classes are one kind.

    >>> draw_counts(4, strata=np.array([0, 0, 1, 1]), count=3)[:, :2].sum(axis=1)
    array([2, 2, 2])
    """
    # Counts of units [unit, resample], stratum by stratum: picks number the units drawn in each
    # resample, `picks * count + resample` numbers (unit, resample), so one bincount tallies all.
    random = np.random.default_rng(seed)
    unit_of_row, unit_strata = _units(row_count, strata, groups)
    drawn = np.zeros((len(unit_strata), count), dtype=np.int64)
    for stratum in np.unique(unit_strata):
        members = np.flatnonzero(unit_strata == stratum)
        picks = random.integers(len(members), size=(len(members), count))
        places = picks * count + np.arange(count)
        tally = np.bincount(places.ravel(), minlength=len(members) * count)
        drawn[members] = tally.reshape(len(members), count)
    # Rows first in memory: statistics gather rows and add over them.
    return (drawn if groups is None else drawn[unit_of_row]).T


def _units(
    row_count: int, strata: np.ndarray | None, groups: Groups | None
) -> tuple[Groups, Int[np.ndarray, " unit"]]:
    """The unit (row or group) that each row is drawn with, and the stratum of every unit."""
    kinds = np.zeros(row_count, dtype=np.int64)
    if strata is not None:
        kinds = np.unique(strata, return_inverse=True)[1]
    if groups is None:
        return np.arange(row_count), kinds
    unit_of_row = np.unique(groups, return_inverse=True)[1]
    lies_in = np.zeros((unit_of_row.max() + 1, kinds.max() + 1), dtype=np.int64)
    lies_in[unit_of_row, kinds] = 1
    return unit_of_row, np.unique(lies_in, axis=0, return_inverse=True)[1].ravel()


def resampled_auroc(
    scores: Scores, labels: Labels, counts: Int[np.ndarray, "resample row"]
) -> Float[np.ndarray, " resample"]:
    """AUROC in every resample, exact with ties; NaN where a class is missing in a resample.

    The rows are sorted once. A positive row beats the negative rows drawn below it and half of
    those at its score: two look-ups in the cumulative counts of the negative rows.
    """
    negatives, positives = np.flatnonzero(~labels), np.flatnonzero(labels)
    if not len(negatives) or not len(positives):
        return np.full(len(counts), np.nan)
    negatives = negatives[np.argsort(scores[negatives])]
    by_row = counts.T
    of_negative, of_positive = by_row[negatives], by_row[positives]
    cumulative = np.zeros((len(negatives) + 1, len(counts)), dtype=np.int64)
    np.cumsum(of_negative, axis=0, out=cumulative[1:])
    ordered = scores[negatives]
    below = cumulative[np.searchsorted(ordered, scores[positives], side="left")]
    up_to = cumulative[np.searchsorted(ordered, scores[positives], side="right")]
    below += up_to
    below *= of_positive
    pairs = of_positive.sum(axis=0) * cumulative[-1]
    won = below.sum(axis=0) / 2
    return np.divide(won, pairs, where=pairs > 0, out=np.full(len(counts), np.nan))


def resampled_aurocs(
    scores: Float[np.ndarray, "row scorer"], labels: Labels, counts: Int[np.ndarray, "resample row"]
) -> Float[np.ndarray, "resample scorer"]:
    """AUROC of every column of scores in the same resamples, so that differences are paired."""
    columns = [resampled_auroc(column, labels, counts) for column in scores.T]
    return np.stack(columns, axis=1)


def percentile_interval(
    estimate: float,
    resampled: Float[np.ndarray, " resample"],
    *,
    is_tested: bool = False,
    count: int | None = None,
) -> Estimate:
    """The estimate with 95 % of its resamples; tested, with a two-sided p-value for 0.

    The p-value is twice the smaller share of resamples on either side of 0, the estimate itself
    counted as one of them, so it is never 0. Resamples of a share of 0 or 1 are all alike: of
    `count` independent rows, such a share has its exact interval.
    """
    if count is not None and estimate in (0.0, 1.0) and np.ptp(resampled) == 0:
        return share_estimate(estimate * count, count)
    lower, upper = map(float, np.nanquantile(resampled, _TAILS))
    p_value = None
    if is_tested:
        sides = min((resampled <= 0).sum(), (resampled >= 0).sum())
        p_value = min(2 * (float(sides) + 1) / (len(resampled) + 1), 1.0)
    return Estimate(estimate, lower, upper, p_value)


# Of a class, completions that a step needs: with fewer a resample may have none.
LEAST_COMPLETIONS = 5


@dataclass(frozen=True)
class Curve:
    """One estimate a step: `[lower, upper]` pointwise, `[band_lower, band_upper]` for the curve.

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


def mean_difference(
    values: Float[np.ndarray, "row step"],
    is_positive: Labels,
    counts: Int[np.ndarray, "resample row"],
) -> Curve:
    """Mean of the positive class less that of the negative, by step that enough of each reach.

    A step's means are over the completions that reach it, so its rows differ from those of the
    step before where completions end.
    """
    is_reached = ~np.isnan(values)
    tallies = np.stack(
        [is_reached[of_class].sum(axis=0) for of_class in (is_positive, ~is_positive)]
    )
    steps = np.flatnonzero(tallies.min(axis=0) >= LEAST_COMPLETIONS)
    is_reached, filled = is_reached[:, steps], np.nan_to_num(values[:, steps])

    def differences(drawn: Int[np.ndarray, "resample row"]) -> Float[np.ndarray, "resample step"]:
        means = []
        for of_class in (is_positive, ~is_positive):
            weights = drawn[:, of_class].astype(np.float64)
            totals = weights @ is_reached[of_class]
            sums = weights @ filled[of_class]
            empty = np.full(sums.shape, np.nan)
            means.append(np.divide(sums, totals, where=totals > 0, out=empty))
        return means[0] - means[1]

    estimates = differences(np.ones((1, len(is_positive)), dtype=np.int64))[0]
    return banded(steps, estimates, differences(counts), *tallies[:, steps])


def banded(
    steps: Int[np.ndarray, " step"],
    estimate: Float[np.ndarray, " step"],
    resampled: Float[np.ndarray, "resample step"],
    positive_counts: Int[np.ndarray, " step"],
    negative_counts: Int[np.ndarray, " step"],
) -> Curve:
    """The curve with both bands from its resamples."""
    if not len(steps):
        nothing = np.empty(0)
        return Curve(steps, *(nothing,) * 5, positive_counts, negative_counts)
    lower, upper = np.nanquantile(resampled, _TAILS, axis=0)
    deviation = np.nanstd(resampled, axis=0)
    missing = np.full(resampled.shape, np.nan)
    distances = np.divide(np.abs(resampled - estimate), deviation, where=deviation > 0, out=missing)
    # A curve without any spread has a band of no width.
    distances[:, deviation == 0] = 0.0
    reach = np.nanquantile(np.nanmax(distances, axis=1), _LEVEL) * deviation
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
