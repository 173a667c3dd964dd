"""Every metric of one scorer on one labelled set, with its uncertainty.

An AUROC alone says neither how sure it is nor what it would be worth in use: next to it are its
bootstrap interval, the true-positive rate at few false alarms, and the error of calibrated
probabilities. Two scorers are compared on the same rows. Groups (matched pairs) are independent.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from axes.analysis.stats.auroc import (
    Estimate,
    Groups,
    Labels,
    Scores,
    auroc_difference,
    auroc_interval,
)
from axes.analysis.stats.bootstrap import (
    auroc_bootstrap,
    auroc_difference_bootstrap,
    draw_counts,
    percentile_interval,
)
from axes.analysis.stats.calibration import fit_calibration
from axes.analysis.stats.splits import grouped_folds

FALSE_POSITIVE_RATES = (0.01, 0.05)
_BIN_COUNT = 10


def evaluate_scores(
    scores: Scores, labels: Labels, groups: Groups, *, seed: int = 0
) -> dict[str, Estimate]:
    """Metric -> estimate of one scorer.

    `auroc` with DeLong's interval, `auroc_bootstrap` the same with one of 1,000 resamples within
    classes and in whole groups, `tpr_at_fpr_0.01` and `_0.05` with theirs, and
    `expected_calibration_error` of Platt probabilities fitted on other folds.
    """
    counts = draw_counts(len(labels), strata=labels, groups=groups, seed=seed)
    once = np.ones((1, len(labels)), dtype=np.int64)
    metrics = {
        "auroc": auroc_interval(scores, labels, groups=groups),
        "auroc_bootstrap": auroc_bootstrap(scores, labels, counts),
    }
    for limit in FALSE_POSITIVE_RATES:
        rate = float(tpr_at_fpr(scores, labels, once, limit)[0])
        resampled = tpr_at_fpr(scores, labels, counts, limit)
        metrics[f"tpr_at_fpr_{limit}"] = percentile_interval(rate, resampled)
    probabilities = cross_calibrated(scores, labels, groups, seed=seed)
    error = expected_calibration_error(probabilities, labels)
    return {**metrics, "expected_calibration_error": Estimate(error)}


def evaluate_difference(
    first: Scores, second: Scores, labels: Labels, groups: Groups, *, seed: int = 0
) -> dict[str, Estimate]:
    """Metric -> AUROC of `first` minus that of `second`, by DeLong and by paired bootstrap."""
    counts = draw_counts(len(labels), strata=labels, groups=groups, seed=seed)
    return {
        "auroc_difference": auroc_difference(first, second, labels, groups=groups),
        "auroc_difference_bootstrap": auroc_difference_bootstrap(first, second, labels, counts),
    }


def tpr_at_fpr(
    scores: Scores, labels: Labels, counts: Int[np.ndarray, "resample row"], limit: float
) -> Float[np.ndarray, " resample"]:
    """The largest true-positive rate at a false-positive rate of at most `limit`, per resample.

    Thresholds lie between distinct scores, without interpolation: the share of positive rows above
    the (k + 1)-th highest negative one, `k` the greatest count with `k / n_neg <= limit`. NaN where
    a class is missing in a resample. Same value as the macro `tpr_at_fpr`.
    """
    negatives, positives = np.flatnonzero(~labels), np.flatnonzero(labels)
    if not len(negatives) or not len(positives):
        return np.full(len(counts), np.nan)
    negatives = negatives[np.argsort(-scores[negatives])]
    positives = positives[np.argsort(-scores[positives])]
    by_row = counts.T
    false = np.cumsum(by_row[negatives], axis=0)
    true = np.zeros((len(positives) + 1, len(counts)), dtype=np.int64)
    np.cumsum(by_row[positives], axis=0, out=true[1:])
    # The first negative row that would be one false alarm too many.
    first = (false / np.maximum(false[-1], 1) <= limit).sum(axis=0)
    ceiling = np.append(scores[negatives], -np.inf)[first]
    above = np.searchsorted(-scores[positives], -ceiling, side="left")
    caught = true[above, np.arange(len(counts))]
    is_known = (true[-1] > 0) & (false[-1] > 0)
    return np.divide(caught, true[-1], where=is_known, out=np.full(len(counts), np.nan))


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
    folds = grouped_folds(labels, groups, seed=seed)
    result = np.empty(len(scores))
    for fold in np.unique(folds):
        seen = folds != fold
        if np.ptp(scores[seen]) == 0:
            # A score that is always the same, such as the length of equally long texts.
            result[~seen] = labels[seen].mean()
            continue
        fitted = fit_calibration(scores[seen], labels[seen])
        result[~seen] = fitted.probability(scores[~seen])
    return result
