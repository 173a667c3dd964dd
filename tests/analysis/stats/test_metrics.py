from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_curve

from axes.analysis.stats.bootstrap import draw_counts
from axes.analysis.stats.evaluate import cross_calibrated, expected_calibration_error, tpr_at_fpr


@given(
    st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=50),
    st.sampled_from([0.0, 0.01, 0.05, 0.25, 1.0]),
)
def test_tpr_at_fpr_is_scikit_learns_on_the_rows_drawn(rows, limit):
    scores = np.array([float(score) for score, _ in rows])
    labels = np.array([label for _, label in rows])
    counts = draw_counts(len(rows), count=4)
    for drawn, found in zip(counts, tpr_at_fpr(scores, labels, counts, limit), strict=True):
        chosen = np.repeat(labels, drawn)
        if chosen.all() or not chosen.any():
            assert math.isnan(found)
        else:
            fpr, tpr, _ = roc_curve(chosen, np.repeat(scores, drawn), drop_intermediate=False)
            assert found == pytest.approx(tpr[fpr <= limit].max())


def test_calibration_error_is_the_mean_gap_over_bins():
    probabilities = np.repeat(np.linspace(0.05, 0.95, 10), 10)
    exact = np.tile(np.arange(10), 10) < np.repeat(np.arange(10), 10) + 0.5
    assert expected_calibration_error(probabilities, exact) == pytest.approx(0.05)
    assert expected_calibration_error(probabilities, ~exact) > 0.4
    order = np.random.default_rng(0).permutation(100)
    again = expected_calibration_error(probabilities[order], exact[order])
    assert again == pytest.approx(expected_calibration_error(probabilities, exact))


def test_cross_calibrated_probabilities_are_calibrated_where_the_model_is_right():
    random = np.random.default_rng(1)
    labels = random.random(4000) < 0.5
    scores = 500 + 30 * (random.standard_normal(4000) + 2 * labels)
    found = cross_calibrated(scores, labels, np.arange(4000))
    assert expected_calibration_error(found, labels) < 0.03
    turned = expected_calibration_error(1 - found, labels)
    assert turned > 0.3
