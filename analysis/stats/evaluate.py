"""Every metric of some scorers on one labelled set, with its uncertainty.

An AUROC alone says neither how sure it is nor what it would be worth in use: next to it are its
bootstrap interval, the true-positive rate at few false alarms, and the error of calibrated
probabilities. Two scorers are compared on the same rows. Groups (matched pairs) are independent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from axes.analysis.stats.auroc import (
    Estimate,
    Groups,
    Labels,
    Scores,
    auroc_difference,
    auroc_interval,
    share_estimate,
)
from axes.analysis.stats.bootstrap import (
    auroc_bootstrap,
    auroc_difference_bootstrap,
    draw_counts,
)
from axes.analysis.stats.calibration import fit_calibration
from axes.analysis.stats.detection import average_precision, tpr_intervals
from axes.analysis.stats.splits import grouped_folds, out_of_fold

_BIN_COUNT = 10


def evaluate_scores(
    scores: Mapping[str, Scores],
    labels: Labels,
    groups: Groups,
    *,
    compared: Sequence[tuple[str, str]] = (),
    is_out_of_fold: bool = False,
    seed: int = 0,
) -> dict[str, dict[str, Estimate]]:
    """Scorer -> metric -> estimate, all on the same resamples.

    `auroc` with DeLong's interval, `auroc_bootstrap` the same with one of 1,000 resamples within
    classes and in whole groups, and the metrics of `point_metrics`. For each pair
    `compared`, the AUROC of the first minus that of the second under `FIRST_minus_SECOND`:
    `auroc_difference` by DeLong and `auroc_difference_bootstrap` by paired bootstrap.
    `is_out_of_fold`: the rows were fitted on too, in folds. Resamples of scores say nothing of
    that, so that of the AUROC only `auroc_interval`'s interval is left.
    """
    counts = draw_counts(len(labels), strata=labels, groups=groups, seed=seed)
    metrics = {}
    for scorer, values in scores.items():
        area = auroc_interval(values, labels, groups, is_out_of_fold=is_out_of_fold)
        points = point_metrics(values, labels, groups, seed=seed)
        metrics[scorer] = {"auroc": area, **points}
        if not is_out_of_fold:
            metrics[scorer]["auroc_bootstrap"] = auroc_bootstrap(values, labels, counts)
    for first, second in compared:
        pair = (scores[first], scores[second], labels)
        difference = auroc_difference(*pair, groups, is_out_of_fold=is_out_of_fold)
        metrics[f"{first}_minus_{second}"] = {"auroc_difference": difference}
        if not is_out_of_fold:
            paired = auroc_difference_bootstrap(*pair, counts)
            metrics[f"{first}_minus_{second}"]["auroc_difference_bootstrap"] = paired
    return metrics


def point_metrics(
    scores: Scores, labels: Labels, groups: Groups, *, seed: int = 0
) -> dict[str, Estimate]:
    """The metrics next to the AUROC.

    `tpr_at_fpr_0.001`, `_0.01` and `_0.05` with intervals, `auprc`, and `brier_score` and
    `expected_calibration_error` of Platt probabilities fitted on other folds. Where every group
    holds one row of each class also `pairs_in_order`, the share of matched pairs whose positive row
    scores higher, ties counting half, with its exact interval.
    """
    metrics = {
        f"tpr_at_fpr_{limit}": estimate
        for limit, estimate in tpr_intervals(scores, labels, groups, seed=seed).items()
    }
    metrics["auprc"] = Estimate(average_precision(scores, labels))
    probabilities = cross_calibrated(scores, labels, groups, seed=seed)
    metrics["brier_score"] = Estimate(float(np.square(probabilities - labels).mean()))
    error = expected_calibration_error(probabilities, labels)
    metrics["expected_calibration_error"] = Estimate(error)
    positive, negative = np.flatnonzero(labels), np.flatnonzero(~labels)
    positive = positive[np.argsort(groups[positive])]
    negative = negative[np.argsort(groups[negative])]
    # Both classes in the order of their groups: row by row the two of a pair.
    is_paired = np.array_equal(groups[positive], groups[negative])
    if is_paired and len(np.unique(groups)) == len(positive):
        won = np.sign(scores[positive] - scores[negative]).sum() / 2 + len(positive) / 2
        metrics["pairs_in_order"] = share_estimate(float(won), len(positive))
    return metrics


def expected_calibration_error(probabilities: Scores, labels: Labels) -> float:
    """Mean gap between probability and share of positives over ten bins of equal size.

    Rows in the order of their probabilities, equal ones by the mean of their labels, are cut into
    ten runs of (almost) the same length; the gap of a run counts by its length (Naeini et al. 2015;
    bins of equal mass, Nixon et al. 2019).

    >>> expected_calibration_error(np.array([0.25, 0.25, 0.25, 0.25]), np.arange(4) == 0)
    0.0
    """
    _, at, sizes = np.unique(probabilities, return_inverse=True, return_counts=True)
    # Rows of equal probability share their outcome, so that their order cannot matter.
    share = (np.bincount(at, weights=labels) / sizes)[at]
    order = np.argsort(at, kind="stable")
    gaps = [
        abs((probabilities[part] - share[part]).sum())
        for part in np.array_split(order, min(_BIN_COUNT, len(labels)))
    ]
    return float(sum(gaps) / len(labels))


def cross_calibrated(scores: Scores, labels: Labels, groups: Groups, *, seed: int = 0) -> Scores:
    """Calibrated probabilities, each from a calibration fitted on the other folds of groups."""

    def fit(seen: Labels) -> Scores:
        if np.ptp(scores[seen]) == 0:
            # A score that is always the same, such as the length of equally long texts.
            return np.full(len(scores), labels[seen].mean())
        return fit_calibration(scores[seen], labels[seen]).probability(scores)

    return out_of_fold(fit, grouped_folds(labels, groups, seed=seed))
