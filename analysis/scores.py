"""How well scores tell two classes apart: AUROC with ties, its interval and its null."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.stats import norm, rankdata


@dataclass(frozen=True)
class Estimate:
    """A figure with the ends of its 95 % interval, where it has one."""

    estimate: float
    lower: float | None = None
    upper: float | None = None


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


def shuffled_label_null(
    x: Float[np.ndarray, "row d_model"],
    labels: Bool[np.ndarray, " row"],
    groups: Int[np.ndarray, " row"],
    *,
    count: int = 200,
    seed: int = 0,
) -> Float[np.ndarray, " shuffle"]:
    """In-sample AUROCs of difference-in-means directions fitted on shuffled labels.

    In many dimensions a direction fitted to noise tells its own rows apart well above 0.5; an
    in-sample AUROC has to be held against this, not against 0.5. Where every group holds both
    classes (matched pairs), labels are shuffled within groups: what the members of a pair share
    cancels in the true difference, and must cancel in its null.
    """
    random = np.random.default_rng(seed)
    is_matched = all(len(set(labels[groups == group])) == 2 for group in np.unique(groups))
    blocks = groups if is_matched else np.zeros_like(groups)
    centred = x - x.mean(axis=0, dtype=np.float64)
    gram = centred @ centred.T
    result = np.empty(count)
    for index in range(count):
        shuffled = _shuffle_within(blocks, labels, random)
        weights = np.where(shuffled, 1 / shuffled.sum(), -1 / (~shuffled).sum())
        result[index] = auroc(gram @ weights, shuffled)
    return result


def _shuffle_within(
    blocks: Int[np.ndarray, " row"], labels: Bool[np.ndarray, " row"], random: np.random.Generator
) -> Bool[np.ndarray, " row"]:
    """The labels, each moved to a random row of its own block."""
    in_blocks = np.argsort(blocks, kind="stable")
    at_random = np.lexsort((random.random(len(labels)), blocks))
    shuffled = np.empty_like(labels)
    shuffled[at_random] = labels[in_blocks]
    return shuffled
