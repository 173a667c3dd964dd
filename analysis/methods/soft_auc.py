"""The direction of the largest smooth AUROC (Llorente-Saguer 2026, arXiv 2604.18901).

Maximise `mean(sigmoid((z_i - z_j) w)) - penalty / 2 |w|^2` over all pairs of a positive row `i` and
a negative row `j`, with `z` the standardised rows. A pair that is far in order, or far out of it,
hardly counts, so that a few extreme rows cannot turn the direction as they turn class means. The
penalty sets how sharp the sigmoid becomes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from scipy.special import expit

from axes.analysis.activations import blocks
from axes.analysis.methods.covariance import mean_and_variance
from axes.analysis.stats.auroc import Groups, Labels, Scores
from axes.analysis.stats.minimize import minimize
from axes.warehouse.layers import Rows

PENALTY = 0.01
# Pairs of a step: a block of differences in float64 stays within 32 MiB.
_PAIR_COUNT = 1 << 22


def soft_auc(
    x: Rows, _groups: Groups, where: Labels | None
) -> Callable[[Labels], Float[np.ndarray, " d_model"]]:
    """Labels of all rows -> weights in the units of `x`, fitted on those `where` is true.

    All pairs of a positive and a negative row count, matched or not. The search starts at zero,
    where the slope is the difference of the class means, and draws nothing: the same rows give the
    same direction. Zero where the class means are equal. Time grows with the number of pairs.
    """
    centre, variance = mean_and_variance(x, where)
    scale = np.where(variance > 0, np.sqrt(variance), 1.0)

    def fit(labels: Labels) -> Float[np.ndarray, " d_model"]:
        kinds = labels if where is None else labels[where]

        def loss(point: np.ndarray) -> tuple[float, np.ndarray]:
            weights = point / scale
            scores = np.concatenate(
                [(block - centre) @ weights for (block,) in blocks(x, where=where)]
            )
            area, slopes = smooth_auroc(scores, kinds)
            slope, start = np.zeros(len(centre)), 0
            for (block,) in blocks(x, where=where):
                slope += slopes[start : start + len(block)] @ (block - centre)
                start += len(block)
            value = PENALTY / 2 * float(point @ point) - area
            return value, PENALTY * point - slope / scale

        return minimize(loss, np.zeros(len(centre)), gtol=1e-9, ftol=1e-15) / scale

    return fit


def smooth_auroc(scores: Scores, labels: Labels) -> tuple[float, Float[np.ndarray, " row"]]:
    """The mean sigmoid of a positive minus a negative score, and its slope in every score.

    >>> smooth_auroc(np.array([0.0, 0.0]), np.array([True, False]))
    (0.5, array([ 0.25, -0.25]))
    """
    positive, negative = scores[labels], scores[~labels]
    total, slopes = 0.0, np.zeros(len(scores))
    if not len(positive) or not len(negative):
        return 0.5, slopes
    risen, fallen = np.zeros(len(positive)), np.zeros(len(negative))
    step = max(_PAIR_COUNT // len(negative), 1)
    for start in range(0, len(positive), step):
        part = slice(start, start + step)
        in_order = expit(positive[part, None] - negative)  # [positive, negative]
        total += float(in_order.sum())
        in_order *= 1 - in_order
        risen[part] = in_order.sum(axis=1)
        fallen += in_order.sum(axis=0)
    slopes[labels], slopes[~labels] = risen, -fallen
    pair_count = len(positive) * len(negative)
    return total / pair_count, slopes / pair_count
