"""How well scores tell two classes apart: AUROC with ties, and its interval."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import norm, rankdata


@dataclass(frozen=True)
class Estimate:
    """A figure with the ends of its 95 % interval, where it has one."""

    estimate: float
    lower: float | None = None
    upper: float | None = None


def spread(null: Float[np.ndarray, " draw"]) -> Estimate:
    """The mean of a null, with its 5th and 95th percentile for an interval."""
    return Estimate(float(null.mean()), *map(float, np.quantile(null, [0.05, 0.95])))


def auroc(scores: Float[np.ndarray, " row"], labels: Bool[np.ndarray, " row"]) -> float:
    """Probability that a positive row scores above a negative one, ties counting half.

    Mann-Whitney U over the number of pairs, with midranks (Hanley and McNeil 1982). NaN where a
    class is missing.

    >>> auroc(np.array([0.1, 0.4, 0.4, 0.8]), np.array([False, False, True, True]))
    0.875
    """
    positive_count = int(labels.sum())
    pairs = positive_count * (len(labels) - positive_count)
    if not pairs:
        return float("nan")
    rank_sum = rankdata(scores)[labels].sum()
    return float((rank_sum - positive_count * (positive_count + 1) / 2) / pairs)


def auroc_interval(
    scores: Float[np.ndarray, " row"], labels: Bool[np.ndarray, " row"], level: float = 0.95
) -> Estimate:
    """AUROC with DeLong's interval (DeLong et al. 1988; by midranks, Sun and Xu 2014).

    Rows are taken as independent. The interval is left out with fewer than two rows in a class.
    """
    area = auroc(scores, labels)
    positive, negative = scores[labels], scores[~labels]
    if min(len(positive), len(negative)) < 2:
        return Estimate(area)
    ranks = rankdata(scores)
    above = (ranks[labels] - rankdata(positive)) / len(negative)
    below = 1.0 - (ranks[~labels] - rankdata(negative)) / len(positive)
    variance = above.var(ddof=1) / len(positive) + below.var(ddof=1) / len(negative)
    reach = float(norm.ppf(0.5 + level / 2) * np.sqrt(variance))
    return Estimate(area, max(area - reach, 0.0), min(area + reach, 1.0))
