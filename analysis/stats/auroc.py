"""How well scores separate two classes: AUROC with ties, its interval, and differences of two.

DeLong's variance by placements: the placement of a positive row is the share of negative rows below
it, ties counting half, and the other way round. AUROC is the mean of either (DeLong et al. 1988; by
midranks, Sun and Xu 2014). Where rows come in groups the placements are summed within groups
(Obuchowski 1997).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

# Of the rows of a prompt set: a number each, whether each is positive, and a number that the rows
# of a group share.
Scores = Float[np.ndarray, " row"]
Labels = Bool[np.ndarray, " row"]
Groups = Int[np.ndarray, " row"]

LEVEL = 0.95
# Rows or groups out of order, below which a ranking counts as perfect.
_PERFECT = 0.5
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Estimate:
    """A value with the ends of its 95 % interval, and the p-value of a test, where it has them."""

    estimate: float
    lower: float | None = None
    upper: float | None = None
    p_value: float | None = None


def null_interval(null: Float[np.ndarray, " draw"]) -> Estimate:
    """The mean of a null, with its 5th and 95th percentile as the interval."""
    return Estimate(float(null.mean()), *map(float, np.quantile(null, [0.05, 0.95])))


def auroc(scores: Scores, labels: Labels) -> float:
    """Probability that a positive row scores above a negative one, ties counting half.

    Mann-Whitney U over the number of pairs, with midranks (Hanley and McNeil 1982). NaN where a
    class is missing.

    >>> auroc(np.array([0.1, 0.4, 0.4, 0.8]), np.array([False, False, True, True]))
    0.875
    """
    return float(aurocs(scores[None], labels)[0])


def aurocs(
    scores: Float[np.ndarray, "scorer row"], labels: Bool[np.ndarray, "*#scorer row"]
) -> Float[np.ndarray, " scorer"]:
    """AUROC of every row of scores under its own labels (or one row of labels for all)."""
    labels = np.broadcast_to(labels, scores.shape)
    positive_count = labels.sum(axis=1)
    pairs = positive_count * (scores.shape[1] - positive_count)
    rank_sum = np.where(labels, midranks(scores), 0.0).sum(axis=1)
    won = rank_sum - positive_count * (positive_count + 1) / 2
    return np.divide(won, pairs, where=pairs > 0, out=np.full(len(scores), np.nan))


def auroc_interval(
    scores: Scores, labels: Labels, groups: Groups | None = None, *, is_out_of_fold: bool = False
) -> Estimate:
    """AUROC with DeLong's interval; with `groups`, whole groups are independent.

    The interval is left out with fewer than two rows (or groups) in a class, and where all scores
    are equal. `is_out_of_fold`: the rows were fitted on as well, in folds; the interval is then
    the widest that `analysis/stats/out_of_fold.py` would give, without its refits.
    """
    area = auroc(scores, labels)
    moved = influences(scores[None], labels, groups)
    if moved is None:
        return Estimate(area)
    return area_estimate(area, _variance(moved[:, 0], is_out_of_fold), len(moved))


def auroc_difference(
    first: Scores,
    second: Scores,
    labels: Labels,
    groups: Groups | None = None,
    *,
    is_out_of_fold: bool = False,
) -> Estimate:
    """AUROC of `first` minus that of `second` on the same rows: DeLong's paired interval and test.

    The p-value is two-sided, for no difference. Interval and p-value are left out with fewer than
    two rows in a class, and the p-value where the variance is 0 and the difference is not: both
    rankings are then perfect or perfectly wrong, to which normal theory does not apply.
    `is_out_of_fold` as for `auroc_interval`.

    >>> scores, labels = np.arange(6.0), np.array([False, True, False, True, False, True])
    >>> auroc_difference(scores, scores, labels)
    Estimate(estimate=0.0, lower=0.0, upper=0.0, p_value=1.0)
    """
    difference = auroc(first, labels) - auroc(second, labels)
    moved = influences(np.stack([first, second]), labels, groups)
    if moved is None:
        return Estimate(difference)
    return difference_estimate(difference, _variance(moved[:, 0] - moved[:, 1], is_out_of_fold))


def area_estimate(area: float, variance: float, count: int, df: float = np.inf) -> Estimate:
    """An AUROC with the interval of a variance; `count`: the rows or groups behind it.

    Student's with `df` degrees of freedom. It is symmetric on the logit scale where it would reach
    more than 0.4 of the way to 0 or 1. Within half a row or group of a perfect ranking the
    variance is hardly known: then the interval has the exact bound of so many successes of so many
    (`share_estimate`), too. Equal scores have no interval.
    """
    error = float(np.sqrt(variance))
    is_perfect = min(area, 1 - area) * count < _PERFECT
    if error < _ROUNDING and not is_perfect:
        return Estimate(area)
    lower, upper = _bounds(area, _quantile(df) * error)
    if is_perfect:
        exact_lower, exact_upper = _exact_bounds(round(area) * count, count)
        lower, upper = min(lower, exact_lower), max(upper, exact_upper)
    return Estimate(area, lower, upper)


def _bounds(area: float, reach: float) -> tuple[float, float]:
    """From so far below an AUROC to so far above it, or so on the logit scale (delta method)."""
    room = min(area, 1 - area)
    if reach <= 0.4 * room or room < _ROUNDING:
        return area - reach, area + reach
    from scipy.special import expit, logit

    reach /= area * (1 - area)
    return float(expit(logit(area) - reach)), float(expit(logit(area) + reach))


def difference_estimate(difference: float, variance: float, df: float = np.inf) -> Estimate:
    """A difference of AUROCs with its interval and two-sided p-value, as `area_estimate`."""
    error = float(np.sqrt(variance))
    # Placements are sums of fractions: what is left of a variance that is 0 is rounding.
    if error < _ROUNDING:
        p_value = 1.0 if abs(difference) < _ROUNDING else None
        return Estimate(difference, difference, difference, p_value)
    from scipy.special import stdtr

    reach = _quantile(df) * error
    p_value = float(2 * stdtr(df, -abs(difference) / error))
    lower, upper = max(difference - reach, -1.0), min(difference + reach, 1.0)
    return Estimate(difference, lower, upper, p_value)


def share_estimate(successes: float, count: float) -> Estimate:
    """A share with its exact binomial interval (Clopper and Pearson 1934).

    >>> share_estimate(60, 60)
    Estimate(estimate=1.0, lower=0.940..., upper=1.0, p_value=None)
    """
    return Estimate(successes / count, *_exact_bounds(successes, count))


def _exact_bounds(successes: float, count: float) -> tuple[float, float]:
    from scipy.special import betaincinv

    tail, failures = (1 - LEVEL) / 2, count - successes
    lower = betaincinv(successes, failures + 1, tail) if successes > 0 else 0.0
    upper = betaincinv(successes + 1, failures, 1 - tail) if failures > 0 else 1.0
    return float(lower), float(upper)


def influences(
    scores: Float[np.ndarray, "scorer row"], labels: Labels, groups: Groups | None
) -> Float[np.ndarray, "group scorer"] | None:
    """What each group of rows moves the scorers' AUROCs by; their squares sum to DeLong's variance.

    Without `groups` each row is one. None with fewer than two groups in a class.
    """
    groups = np.arange(len(labels)) if groups is None else groups
    _, group = np.unique(groups, return_inverse=True)
    sizes = [len(np.unique(group[labels])), len(np.unique(group[~labels]))]
    if min(sizes) < 2:
        return None
    above, below = _placements(scores, labels)
    sums = np.zeros((2, group.max() + 1, len(scores)))
    np.add.at(sums[0], group[labels], (above - above.mean(axis=1, keepdims=True)).T)
    np.add.at(sums[1], group[~labels], (below - below.mean(axis=1, keepdims=True)).T)
    # Obuchowski's correction for few groups, in each class by the number of groups it lies in.
    factors = [np.sqrt(size / (size - 1)) for size in sizes]
    return sums[0] * factors[0] / labels.sum() + sums[1] * factors[1] / (~labels).sum()


def _variance(moved: Float[np.ndarray, " group"], is_out_of_fold: bool) -> float:
    return float(moved @ moved) * (2 if is_out_of_fold else 1)


def _quantile(df: float) -> float:
    """Standard errors to either side of an estimate in its interval."""
    from scipy.special import stdtrit

    return float(stdtrit(df, 0.5 + LEVEL / 2))


def _placements(
    scores: Float[np.ndarray, "scorer row"], labels: Labels
) -> tuple[Float[np.ndarray, "scorer positive"], Float[np.ndarray, "scorer negative"]]:
    positive, negative = scores[:, labels], scores[:, ~labels]
    ranks = midranks(scores)
    above = (ranks[:, labels] - midranks(positive)) / negative.shape[1]
    below = 1.0 - (ranks[:, ~labels] - midranks(negative)) / positive.shape[1]
    return above, below


def midranks(scores: Float[np.ndarray, "*scorer row"]) -> Float[np.ndarray, "*scorer row"]:
    """Ranks from 1 within each scorer; equal scores share the mean of their ranks.

    NaN throughout where one is NaN: as `scipy.stats.rankdata`, whose import takes 0.8 s.
    """
    ranks = np.empty(scores.shape)
    for scorer in np.ndindex(scores.shape[:-1]):
        _, place, counts = np.unique(scores[scorer], return_inverse=True, return_counts=True)
        ranks[scorer] = (counts.cumsum() - (counts - 1) / 2)[place]
    ranks[np.isnan(scores).any(axis=-1)] = np.nan
    return ranks
