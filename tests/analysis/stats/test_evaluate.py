from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, brier_score_loss

from axes.analysis.stats.auroc import auroc, auroc_interval, share_estimate
from axes.analysis.stats.evaluate import (
    cross_calibrated,
    evaluate_scores,
    expected_calibration_error,
    point_metrics,
)

LABELS, PAIRS = np.arange(240) % 2 == 0, np.arange(240) // 2


def scores(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(240) + 1.5 * LABELS


def test_every_figure_of_a_scorer_is_within_its_interval():
    found = evaluate_scores({"axis": scores()}, LABELS, PAIRS)["axis"]
    assert found["auroc"] == auroc_interval(scores(), LABELS, groups=PAIRS)
    assert found["auroc_bootstrap"].estimate == found["auroc"].estimate
    assert found["tpr_at_fpr_0.01"].estimate <= found["tpr_at_fpr_0.05"].estimate
    for name in ("auroc", "auroc_bootstrap", "tpr_at_fpr_0.01", "tpr_at_fpr_0.05"):
        assert found[name].lower <= found[name].estimate <= found[name].upper
    assert found["tpr_at_fpr_0.001"].estimate <= found["tpr_at_fpr_0.01"].estimate
    assert found["tpr_at_fpr_0.001"].lower is None, "120 negative rows cannot tell one in 1,000"
    assert 0 <= found["expected_calibration_error"].estimate < 0.12


def test_auprc_and_the_brier_score_are_those_of_scikit_learn():
    found = point_metrics(scores(), LABELS, PAIRS)
    theirs = average_precision_score(LABELS, scores())
    assert found["auprc"].estimate == pytest.approx(theirs, abs=1e-12)
    probabilities = cross_calibrated(scores(), LABELS, PAIRS)
    theirs = brier_score_loss(LABELS, probabilities)
    assert found["brier_score"].estimate == pytest.approx(theirs, abs=1e-12)
    assert found["brier_score"].estimate < 0.25, "better than to say 0.5 of every row"


def test_a_score_that_is_always_the_same_is_judged_as_one_that_knows_nothing():
    found = evaluate_scores({"length": np.ones(240)}, LABELS, PAIRS)["length"]
    assert found["auroc"].estimate == 0.5
    assert found["tpr_at_fpr_0.05"].estimate == 0
    assert found["expected_calibration_error"].estimate == pytest.approx(0, abs=1e-12)


def test_both_tests_of_a_difference_agree_where_it_is_plain_and_where_there_is_none():
    blurred = scores() + 3 * np.random.default_rng(1).standard_normal(240)
    for first, second, is_there in ((scores(), blurred, True), (scores(), scores(), False)):
        both = {"first": first, "second": second}
        found = evaluate_scores(both, LABELS, PAIRS, compared=[("first", "second")])
        expected = auroc(first, LABELS) - auroc(second, LABELS)
        for estimate in found["first_minus_second"].values():
            assert estimate.estimate == pytest.approx(expected)
            assert (estimate.p_value < 0.05) == is_there


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
    labels = random.random(1500) < 0.5
    scores = 500 + 30 * (random.standard_normal(1500) + 2 * labels)
    found = cross_calibrated(scores, labels, np.arange(1500))
    assert expected_calibration_error(found, labels) < 0.04
    turned = expected_calibration_error(1 - found, labels)
    assert turned > 0.3


def test_pairs_in_order_is_the_share_of_pairs_whose_positive_row_scores_higher():
    order = np.random.default_rng(2).permutation(240)
    paired = scores()[LABELS] - scores()[~LABELS]
    expected = share_estimate(float((paired > 0).sum()), 120)
    found = point_metrics(scores()[order], LABELS[order], PAIRS[order])["pairs_in_order"]
    assert found == expected and 0.7 < found.estimate < 1
    tied = np.where(PAIRS < 60, 0.0, scores())
    won = 30 + float((paired[60:] > 0).sum())
    assert point_metrics(tied, LABELS, PAIRS)["pairs_in_order"] == share_estimate(won, 120)


@pytest.mark.parametrize("groups", [np.arange(240), PAIRS // 2, np.arange(240) // 3])
def test_rows_that_are_not_matched_pairs_have_no_order(groups: np.ndarray):
    assert "pairs_in_order" not in point_metrics(scores(), LABELS, groups)
