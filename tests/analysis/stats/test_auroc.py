from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from scipy.stats import norm, rankdata
from sklearn.metrics import roc_auc_score

from axes.analysis.stats.auroc import (
    auroc,
    auroc_difference,
    auroc_interval,
    influences,
    midranks,
)
from tests.analysis.pairs import labelled_scores


@given(labelled_scores(3, 60, class_count=2))
def test_auroc_with_ties_is_that_of_scikit_learn(rows):
    scores, labels = rows
    assert auroc(scores, labels) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


@pytest.mark.parametrize("count", [30, 60, 200])
@pytest.mark.parametrize("truth", [0.6, 0.9, 0.95, 0.97, 0.99])
def test_intervals_hold_the_truth_about_95_times_in_100(truth: float, count: int):
    """Two normals. Symmetric intervals alone hold 0.95 to 0.98 in 0.89 to 0.91 (60 + 60 rows)."""
    random = np.random.default_rng(1)
    labels = np.arange(2 * count) % 2 == 0
    gap = math.sqrt(2) * norm.ppf(truth)
    drawn = [
        auroc_interval(random.standard_normal(2 * count) + gap * labels, labels) for _ in range(400)
    ]
    assert 0.925 <= np.mean([each.lower <= truth <= each.upper for each in drawn]) <= 0.985


def test_far_from_perfect_the_interval_is_delongs():
    random = np.random.default_rng(2)
    labels = np.arange(400) % 2 == 0
    found = auroc_interval(random.standard_normal(400) + labels, labels)
    assert found.upper - found.estimate == pytest.approx(found.estimate - found.lower)


def test_the_variance_is_delongs_written_out_over_pairs_of_rows():
    """DeLong et al. 1988, equation 5: sample variances of both classes' placements."""
    random = np.random.default_rng(3)
    labels = np.arange(47) < 9
    scores = np.round(random.standard_normal((2, 47)) + labels, 1)
    differences = scores[:, labels, None] - scores[:, None, ~labels]
    won = (differences > 0) + (differences == 0) / 2
    expected = np.cov(won.mean(axis=2)) / 9 + np.cov(won.mean(axis=1)) / 38
    moved = influences(scores, labels, None)
    np.testing.assert_allclose(moved.T @ moved, expected, rtol=1e-12)


def test_an_interval_stays_within_zero_and_one_and_holds_its_estimate():
    assert math.isnan(auroc(np.arange(3.0), np.array([True, True, True])))
    one_row = auroc_interval(np.array([1.0, 2.0, 3.0]), np.array([True, False, False]))
    assert one_row.lower is None and one_row.estimate == 0.0
    labels = np.array([False] * 5 + [True] * 5)
    perfect = auroc_interval(np.arange(10.0), labels)
    assert perfect.estimate == perfect.upper == 1.0
    some = auroc_interval(np.array([1, 2, 3, 9, 5, 4, 6, 7, 8, 2.5]), labels)
    assert 0 <= some.lower < some.estimate < some.upper <= 1


@given(labelled_scores(4, 40, class_count=2))
def test_turned_scores_have_the_mirrored_interval_and_equal_ones_none(rows):
    scores, labels = rows
    found, turned = auroc_interval(scores, labels), auroc_interval(-scores, labels)
    assert turned.estimate == pytest.approx(1 - found.estimate)
    if len(np.unique(scores)) == 1 or min(labels.sum(), (~labels).sum()) < 2:
        assert (found.lower, found.upper, turned.lower) == (None, None, None)
    else:
        assert turned.lower == pytest.approx(1 - found.upper, abs=1e-12)
        assert turned.upper == pytest.approx(1 - found.lower, abs=1e-12)


def test_a_paired_difference_is_tested_as_delong_did():
    """Coverage of the true difference, and rejections where there is none."""
    random = np.random.default_rng(2)
    labels = np.arange(120) % 2 == 0
    truth, covered, rejected = 0.7602499 - 0.6381632, 0, 0
    for _ in range(400):
        shared = random.standard_normal(120)
        first = (shared + random.standard_normal(120)) / np.sqrt(2) + labels
        second = (shared + random.standard_normal(120)) / np.sqrt(2) + labels / 2
        found = auroc_difference(first, second, labels)
        covered += found.lower <= truth <= found.upper
        third = (shared + random.standard_normal(120)) / np.sqrt(2) + labels
        rejected += auroc_difference(first, third, labels).p_value < 0.05
    assert 0.92 <= covered / 400 <= 0.975
    assert 0.025 <= rejected / 400 <= 0.08


def test_swapping_the_scorers_mirrors_the_difference():
    random = np.random.default_rng(3)
    labels = np.arange(60) % 3 == 0
    first, second = random.integers(0, 5, (2, 60)).astype(float) + labels
    found, mirrored = (
        auroc_difference(*pair, labels) for pair in ((first, second), (second, first))
    )
    assert found.estimate == pytest.approx(-mirrored.estimate)
    assert found.lower == pytest.approx(-mirrored.upper)
    assert found.p_value == pytest.approx(mirrored.p_value)


def test_a_difference_of_two_perfect_rankings_is_0_and_of_opposite_ones_has_no_p_value():
    scores, labels = np.arange(10.0), np.arange(10) >= 5
    same, opposite = (auroc_difference(scores, second, labels) for second in (scores**3, -scores))
    assert (same.estimate, same.p_value) == (0.0, 1.0)
    assert (opposite.estimate, opposite.p_value) == (1.0, None)


def test_groups_of_one_row_are_hardly_more_than_delong_and_copies_are_seen_through():
    random = np.random.default_rng(4)
    labels = np.arange(80) % 2 == 0
    scores = random.standard_normal(80) + labels
    plain = auroc_interval(scores, labels)
    alone = auroc_interval(scores, labels, groups=np.arange(80))
    assert (alone.lower, alone.upper) == pytest.approx((plain.lower, plain.upper), abs=1e-9)
    copied = auroc_interval(
        np.tile(scores, 5), np.tile(labels, 5), groups=np.tile(np.arange(80), 5)
    )
    assert (copied.lower, copied.upper) == pytest.approx((plain.lower, plain.upper), abs=1e-9)


def test_matched_pairs_that_share_their_level_narrow_the_interval():
    """In pairs that share much, AUROC over all rows varies less than independent rows say."""
    random = np.random.default_rng(5)
    labels, pairs = np.arange(400) % 2 == 0, np.arange(400) // 2
    areas, widths = [], []
    for _ in range(200):
        shared = 2 * random.standard_normal(200)[pairs]
        scores = shared + random.standard_normal(400) + labels
        found = auroc_interval(scores, labels, groups=pairs)
        areas.append(found.estimate)
        widths.append((found.upper - found.lower) / 2 / 1.96)
    assert np.mean(widths) == pytest.approx(np.std(areas), rel=0.12)


def test_midranks_are_those_of_scipy():
    random = np.random.default_rng(3)
    scores = random.integers(0, 5, (4, 3, 11)).astype(float)
    scores[1, 0, 2], scores[2, 1, 4] = np.nan, np.inf
    np.testing.assert_array_equal(midranks(scores), rankdata(scores, axis=-1))
