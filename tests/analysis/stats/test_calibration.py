from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import percentileofscore
from sklearn.calibration import _SigmoidCalibration
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import roc_curve

from axes.analysis.stats import CALIBRATIONS
from axes.analysis.stats.calibration import choose_threshold, fit_calibration
from axes.warehouse.errors import CalibrationError
from tests.analysis.pairs import labelled_scores

every_method = pytest.mark.parametrize("method", CALIBRATIONS)
GRID = np.linspace(0.0, 250.0, 301)


def scored(count: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = random.random(count) < 0.4
    return 100 + 20 * (random.standard_normal(count) + 1.5 * labels), labels


@pytest.mark.parametrize(
    ("method", "theirs"),
    [
        ("platt", _SigmoidCalibration()),
        ("isotonic", IsotonicRegression(out_of_bounds="clip")),
    ],
)
@pytest.mark.parametrize("decimals", [9, -1], ids=["distinct", "ties"])
def test_it_is_that_of_scikit_learn(method, theirs, decimals):
    scores, labels = scored()
    scores = scores.round(decimals)
    expected = theirs.fit(scores, labels).predict(GRID)
    found = fit_calibration(scores, labels, method).probability(GRID)
    assert found == pytest.approx(expected, abs=1e-5 if method == "platt" else 1e-9)


def test_a_quantile_is_the_share_of_rows_below_ties_counting_half():
    scores, labels = scored()
    scores = scores.round(-1)
    expected = [percentileofscore(scores, value, kind="mean") / 100 for value in scores]
    assert fit_calibration(scores, labels, "quantile").probability(scores) == pytest.approx(
        expected
    )


@pytest.mark.parametrize("method", ["quantile", "z_score"])
def test_scales_that_take_no_labels_do_not_change_with_them(method):
    scores, labels = scored()
    found, other = (fit_calibration(scores, marks, method) for marks in (labels, ~labels))
    assert found.parameters == other.parameters


@every_method
@settings(max_examples=25, deadline=None)
@given(labelled_scores(9, 40, class_count=2).filter(lambda rows: np.ptp(rows[0]) > 0))
def test_every_scale_is_monotone_and_within_0_and_1(method, rows):
    found = fit_calibration(*rows, method).probability(np.linspace(-12, 12, 97))
    assert (np.diff(found) >= -1e-12).all()
    assert found.min() >= 0
    assert found.max() <= 1


@every_method
def test_moving_and_stretching_the_scores_moves_the_scale_with_them(method):
    """What makes models comparable: each on a scale of its own units, rows in any order."""
    scores, labels = scored()
    order = np.random.default_rng(1).permutation(len(scores))
    found = fit_calibration(scores, labels, method)
    moved = fit_calibration(7 * scores[order] - 3000, labels[order], method)
    assert moved.probability(7 * GRID - 3000) == pytest.approx(found.probability(GRID), abs=1e-5)
    assert moved.threshold == pytest.approx(7 * found.threshold - 3000)


def test_an_axis_that_ranks_the_wrong_way_round_is_never_turned_round():
    scores, labels = scored()
    for method in ("platt", "isotonic"):
        found = fit_calibration(scores, ~labels, method).probability(GRID)
        assert np.ptp(found) < 0.05
        assert found.mean() == pytest.approx((~labels).mean(), abs=0.05)


def test_separable_classes_give_finite_parameters():
    found = fit_calibration(np.arange(10.0), np.arange(10) >= 5, "platt")
    assert np.isfinite(json.loads(json.dumps(list(found.parameters.values())))).all()
    assert found.threshold == 4.5


@given(
    labelled_scores(4, 40, class_count=2),
    st.sampled_from(["balanced_accuracy", "fpr=0", "fpr=0.05", "fpr=0.3"]),
)
def test_no_cut_of_scikit_learns_meets_the_target_better(rows, target):
    scores, labels = rows
    called = scores >= choose_threshold(scores, labels, target)
    true_rate, false_rate = called[labels].mean(), called[~labels].mean()
    fpr, tpr, _ = roc_curve(labels, scores, drop_intermediate=False)
    if target == "balanced_accuracy":
        assert true_rate - false_rate == pytest.approx((tpr - fpr).max())
    else:
        limit = float(target.removeprefix("fpr="))
        assert false_rate <= limit
        assert true_rate == pytest.approx(tpr[fpr <= limit].max())


def test_a_cut_between_neighbours_is_the_upper_one():
    """Half way between two neighbouring numbers is one of them, and may be the lower."""
    for lower in (1.0, np.nextafter(1.0, 2)):
        upper = np.nextafter(lower, 2)
        cut = choose_threshold(np.array([lower, upper]), np.array([False, True]))
        assert cut == upper


def test_what_cannot_be_fitted_is_refused_in_one_line():
    scores, labels = scored(20)
    for arguments, message in (
        ((scores, labels, "magic"), "unknown calibration magic: choose platt"),
        ((scores, np.zeros(20, dtype=bool)), "0 positive and 20 negative"),
        ((np.ones(20), labels), "all calibration scores are equal"),
    ):
        with pytest.raises(CalibrationError, match=message):
            fit_calibration(*arguments)
    with pytest.raises(CalibrationError, match="no target fpr=7: give balanced_accuracy or"):
        fit_calibration(scores, labels, target="fpr=7")
