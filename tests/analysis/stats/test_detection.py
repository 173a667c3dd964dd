"""True-positive rates at few false alarms agree with other code, and say how sure they are."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import average_precision_score, roc_curve

from axes.analysis.stats.detection import (
    _drawn_rates,
    average_precision,
    tpr_at_fpr,
    tpr_intervals,
)
from tests.analysis.pairs import labelled_scores


def world(pair_count: int, strength: float, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores, labels and pairs; the truth at a rate is `norm.cdf(strength - norm.isf(rate))`."""
    labels, groups = np.arange(2 * pair_count) % 2 == 0, np.arange(2 * pair_count) // 2
    random = np.random.default_rng(seed)
    return random.standard_normal(2 * pair_count) + strength * labels, labels, groups


@given(labelled_scores(3, 50), st.sampled_from([0.0, 0.01, 0.05, 0.25, 1.0]))
def test_rates_and_precision_are_those_of_scikit_learn(rows, limit):
    scores, labels = rows
    found = tpr_at_fpr(scores, labels, limit)
    if labels.all() or not labels.any():
        assert math.isnan(found)
    else:
        fpr, tpr, _ = roc_curve(labels, scores, drop_intermediate=False)
        assert found == pytest.approx(tpr[fpr <= limit].max())
    if labels.any():
        theirs = average_precision_score(labels, scores)
        assert average_precision(scores, labels) == pytest.approx(theirs, abs=1e-9)
    else:
        assert math.isnan(average_precision(scores, labels))


def test_a_rate_that_too_few_negative_rows_can_tell_has_no_interval():
    for pair_count, known in ((19, []), (20, [0.05]), (100, [0.01, 0.05]), (1000, [0.001])):
        found = tpr_intervals(*world(pair_count, 2.0, 0))
        assert list(found) == [0.001, 0.01, 0.05]
        for rate, estimate in found.items():
            is_known = pair_count * rate >= 1
            assert (estimate.lower is not None) == is_known, (pair_count, rate)
            assert not is_known or estimate.lower <= estimate.estimate <= estimate.upper
        assert all(found[rate].lower is not None for rate in known)


@pytest.mark.parametrize("pair_count", [100, 300])
def test_the_interval_holds_the_planted_rate(pair_count):
    """Of 120 worlds at 95 %, 106 is four standard errors below; the plain bootstrap gives 95."""
    held = 0
    for seed in range(120):
        strength = np.random.default_rng(seed).uniform(0.5, 3.0)
        found = tpr_intervals(*world(pair_count, strength, seed), seed=seed)[0.01]
        held += found.lower <= norm.cdf(strength - norm.isf(0.01)) <= found.upper
    assert held >= 106


def test_intervals_follow_the_seed_and_neither_order_nor_units_of_rows():
    scores, labels, groups = world(100, 1.0, 1)
    found = tpr_intervals(scores, labels, groups)
    assert found == tpr_intervals(scores, labels, groups)
    assert found[0.05].lower == pytest.approx(
        tpr_intervals(1e3 * scores - 7, labels, groups)[0.05].lower, abs=1e-9
    )
    order = np.random.default_rng(0).permutation(len(scores))
    again = tpr_intervals(scores[order], labels[order], groups[order])
    assert again == found


@pytest.mark.parametrize("limit", [0.02, 0.1, 0.6])
def test_a_draws_threshold_is_on_straight_lines_in_the_logarithm_of_the_share(limit):
    """With `np.interp`; beyond the highest negative row, by the mean height of the tail."""
    scores, labels, _ = world(40, 1.0, 3)
    random = np.random.default_rng(0)
    weights, extra = random.standard_exponential((50, 80)), random.standard_exponential(50)
    found = _drawn_rates(scores, labels, weights, extra, limit)
    order = np.argsort(-scores[~labels])
    heights = scores[~labels][order]
    tail = (heights[:4] - heights[4]).mean()
    for rate, weight, more in zip(found, weights, extra, strict=True):
        shares = np.log(np.cumsum(weight[~labels][order]) / (weight[~labels].sum() + more))
        threshold = np.interp(np.log(limit), shares, heights)
        threshold += tail * max(shares[0] - np.log(limit), 0)
        expected = weight[labels & (scores >= threshold)].sum() / weight[labels].sum()
        assert rate == pytest.approx(expected)


def test_classes_that_are_apart_and_scores_that_are_alike_have_their_exact_interval():
    labels, groups = np.arange(400) % 2 == 0, np.arange(400) // 2
    apart = tpr_intervals(labels + 0.0, labels, groups)[0.01]
    assert (apart.estimate, apart.upper) == (1.0, 1.0) and 0.97 < apart.lower < 1
    alike = tpr_intervals(np.ones(400), labels, groups)[0.01]
    assert (alike.estimate, alike.lower) == (0.0, 0.0) and 0 < alike.upper < 0.03
