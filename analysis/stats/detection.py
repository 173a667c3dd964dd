"""How many positive rows are found at few false alarms, and how sure that is.

The true-positive rate at a small false-positive rate rests on the few highest negative rows, which
the plain bootstrap takes as if the threshold were known to lie on one. Here groups are drawn with
exponential weights (Bayesian bootstrap, Rubin 1981), and the threshold lies between two rows or
above the highest (docs/methods.md, AUROC, has the formula and what both cover).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from axes.analysis.stats.auroc import Estimate, Groups, Labels, Scores
from axes.analysis.stats.bootstrap import percentile_interval

FALSE_POSITIVE_RATES = (0.001, 0.01, 0.05)
_DRAW_COUNT = 1000
# Of the negative rows, the share that the tail above the highest one is read off.
_TAIL_SHARE = 0.1


def tpr_at_fpr(scores: Scores, labels: Labels, limit: float) -> float:
    """The largest true-positive rate at a false-positive rate of at most `limit`.

    Thresholds lie between distinct scores, without interpolation: the share of positive rows above
    the (k + 1)-th highest negative one, `k` the greatest count with `k / n_neg <= limit`. NaN where
    a class is missing. Same value as the macro `tpr_at_fpr`.

    >>> tpr_at_fpr(np.array([0.0, 2.0, 1.0, 3.0]), np.array([False, False, True, True]), 0.01)
    0.5
    """
    negatives = -np.sort(-scores[~labels])
    if not len(negatives) or labels.sum() == 0:
        return float("nan")
    count = int((np.arange(1, len(negatives) + 1) / len(negatives) <= limit).sum())
    ceiling = np.append(negatives, -np.inf)[count]
    return float((scores[labels] > ceiling).mean())


def tpr_intervals(
    scores: Scores, labels: Labels, groups: Groups, *, seed: int = 0
) -> dict[float, Estimate]:
    """`tpr_at_fpr` with its 95 % interval by rate, over groups drawn whole.

    A rate that fewer than `1 / rate` negative rows can tell nothing of has no interval: even no
    false alarm among them may be more than that.
    """
    random = np.random.default_rng(seed)
    unit_of_row = np.unique(groups, return_inverse=True)[1]
    weights = random.standard_exponential((_DRAW_COUNT, int(unit_of_row.max()) + 1))
    extra = random.standard_exponential(_DRAW_COUNT)
    estimates = {}
    for limit in FALSE_POSITIVE_RATES:
        point = tpr_at_fpr(scores, labels, limit)
        if (~labels).sum() * limit < 1 or not labels.any():
            estimates[limit] = Estimate(point)
            continue
        drawn = _drawn_rates(scores, labels, weights[:, unit_of_row], extra, limit)
        count = len(np.unique(groups[labels]))
        estimates[limit] = percentile_interval(point, drawn, count=count)
    return estimates


def _drawn_rates(
    scores: Scores,
    labels: Labels,
    weights: Float[np.ndarray, "draw row"],
    extra: Float[np.ndarray, " draw"],
    limit: float,
) -> Float[np.ndarray, " draw"]:
    """The weighted share of positive rows above each draw's threshold."""
    order = np.argsort(-scores, kind="stable")
    negatives, positives = order[~labels[order]], order[labels[order]]
    heights = scores[negatives]
    shares = np.cumsum(weights[:, negatives], axis=1)
    shares = np.log(shares / (shares[:, -1:] + extra[:, None]))
    tail_count = min(max(int(np.ceil(_TAIL_SHARE * len(heights))), 2), len(heights) - 1)
    tail = float((heights[:tail_count] - heights[tail_count]).mean())
    # Straight lines in the logarithm of the share, from one negative row to the next.
    lower = (shares < np.log(limit)).sum(axis=1).clip(1, len(heights) - 1)
    draw, upper = np.arange(len(shares)), lower - 1
    step = shares[draw, lower] - shares[draw, upper]
    within = ((np.log(limit) - shares[draw, upper]) / step).clip(0.0, 1.0)
    thresholds = heights[upper] + (heights[lower] - heights[upper]) * within
    thresholds += tail * (shares[:, 0] - np.log(limit)).clip(min=0.0)
    found = np.zeros((len(weights), len(positives) + 1))
    np.cumsum(weights[:, positives], axis=1, out=found[:, 1:])
    above = np.searchsorted(-scores[positives], -thresholds, side="left")
    return found[draw, above] / found[:, -1]


def average_precision(scores: Scores, labels: Labels) -> float:
    """Area under the precision-recall curve, as a sum over distinct scores without interpolation.

    The mean over positive rows of the precision at their scores; same value as the macro `auprc`.
    NaN without a positive row.

    >>> average_precision(np.array([3.0, 2.0, 1.0, 0.0]), np.array([True, False, False, True]))
    0.75
    """
    if not labels.any():
        return float("nan")
    _, place = np.unique(-scores, return_inverse=True)
    found, drawn = np.cumsum(np.bincount(place, labels)), np.cumsum(np.bincount(place))
    return float((found / drawn)[place[labels]].mean())
