"""Everything that is said about one scorer on one labelled set, each figure with its uncertainty.

An AUROC alone says neither how sure it is, nor what it would be worth in use: beside it stand its
bootstrap interval, the share caught at few false alarms, and how far calibrated probabilities are
off. Two scorers are compared on the same rows. Groups (matched pairs) are what is independent.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int

from axes.analysis.stats.auroc import Estimate, auroc_difference, auroc_interval
from axes.analysis.stats.bootstrap import draw_counts, percentile_interval, resampled_auroc
from axes.analysis.stats.metrics import cross_calibrated, expected_calibration_error, tpr_at_fpr

FALSE_POSITIVE_RATES = (0.01, 0.05)


def judge(
    scores: Float[np.ndarray, " row"],
    labels: Bool[np.ndarray, " row"],
    groups: Int[np.ndarray, " row"],
    *,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Metric -> estimate of one scorer.

    `auroc` with DeLong's interval, `auroc_bootstrap` the same with one of 1,000 resamples within
    classes and in whole groups, `tpr_at_fpr_0.01` and `_0.05` with theirs, and
    `expected_calibration_error` of Platt probabilities fitted on other folds.
    """
    counts = draw_counts(len(labels), strata=labels, groups=groups, seed=seed)
    whole = np.ones((1, len(labels)), dtype=np.int64)
    area = auroc_interval(scores, labels, groups=groups)
    found = {
        "auroc": area,
        "auroc_bootstrap": percentile_interval(
            area.estimate, resampled_auroc(scores, labels, counts)
        ),
    }
    for limit in FALSE_POSITIVE_RATES:
        caught = float(tpr_at_fpr(scores, labels, whole, limit)[0])
        resampled = tpr_at_fpr(scores, labels, counts, limit)
        found[f"tpr_at_fpr_{limit}"] = percentile_interval(caught, resampled)
    probabilities = cross_calibrated(scores, labels, groups, seed=seed)
    found["expected_calibration_error"] = Estimate(
        expected_calibration_error(probabilities, labels)
    )
    return found


def judge_difference(
    first: Float[np.ndarray, " row"],
    second: Float[np.ndarray, " row"],
    labels: Bool[np.ndarray, " row"],
    groups: Int[np.ndarray, " row"],
    *,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Metric -> AUROC of `first` minus that of `second`, by DeLong and by paired bootstrap."""
    difference = auroc_difference(first, second, labels, groups=groups)
    counts = draw_counts(len(labels), strata=labels, groups=groups, seed=seed)
    resampled = resampled_auroc(first, labels, counts) - resampled_auroc(second, labels, counts)
    return {
        "auroc_difference": difference,
        "auroc_difference_bootstrap": percentile_interval(
            difference.estimate, resampled, is_tested=True
        ),
    }
