from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from analysis.scores import auroc, auroc_interval


@given(
    st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=60).filter(
        lambda rows: len({label for _, label in rows}) == 2
    )
)
def test_auroc_with_ties_is_that_of_scikit_learn(rows):
    scores = np.array([float(score) for score, _ in rows])
    labels = np.array([label for _, label in rows])
    assert auroc(scores, labels) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


def test_one_class_has_no_auroc():
    assert math.isnan(auroc(np.arange(3.0), np.array([True, True, True])))


def test_swapping_the_classes_mirrors_auroc():
    random = np.random.default_rng(0)
    scores, labels = random.standard_normal(40), random.random(40) < 0.5
    assert auroc(scores, labels) + auroc(scores, ~labels) == pytest.approx(1)


def test_delong_intervals_cover_the_truth_about_95_times_in_100():
    """Two normals one standard deviation apart: the true AUROC is Phi(1 / sqrt 2)."""
    random = np.random.default_rng(1)
    truth = 0.7602499
    labels = np.arange(120) % 2 == 0
    covered = 0
    for _ in range(600):
        interval = auroc_interval(random.standard_normal(120) + labels, labels)
        covered += interval.lower <= truth <= interval.upper
    assert 0.92 <= covered / 600 <= 0.97


def test_an_interval_stays_within_zero_and_one_and_holds_its_estimate():
    labels = np.array([False] * 5 + [True] * 5)
    perfect = auroc_interval(np.arange(10.0), labels)
    assert perfect.estimate == perfect.upper == 1.0
    some = auroc_interval(np.array([1, 2, 3, 9, 5, 4, 6, 7, 8, 2.5]), labels)
    assert 0 <= some.lower < some.estimate < some.upper <= 1


def test_a_class_of_one_row_has_no_interval():
    interval = auroc_interval(np.array([1.0, 2.0, 3.0]), np.array([True, False, False]))
    assert interval.lower is None and interval.estimate == 0.0
