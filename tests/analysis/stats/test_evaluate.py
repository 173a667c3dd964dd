from __future__ import annotations

import numpy as np
import pytest

from axes.analysis.stats.auroc import auroc, auroc_interval
from axes.analysis.stats.evaluate import evaluate_difference, evaluate_scores

LABELS, PAIRS = np.arange(240) % 2 == 0, np.arange(240) // 2


def scores(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(240) + 1.5 * LABELS


def test_every_figure_of_a_scorer_is_within_its_interval():
    found = evaluate_scores(scores(), LABELS, PAIRS)
    assert found["auroc"] == auroc_interval(scores(), LABELS, groups=PAIRS)
    assert found["auroc_bootstrap"].estimate == found["auroc"].estimate
    assert found["tpr_at_fpr_0.01"].estimate <= found["tpr_at_fpr_0.05"].estimate
    for name in ("auroc", "auroc_bootstrap", "tpr_at_fpr_0.01", "tpr_at_fpr_0.05"):
        assert found[name].lower <= found[name].estimate <= found[name].upper
    assert 0 <= found["expected_calibration_error"].estimate < 0.12


def test_a_score_that_is_always_the_same_is_judged_as_one_that_knows_nothing():
    found = evaluate_scores(np.ones(240), LABELS, PAIRS)
    assert found["auroc"].estimate == 0.5
    assert found["tpr_at_fpr_0.05"].estimate == 0
    assert found["expected_calibration_error"].estimate == pytest.approx(0, abs=1e-12)


def test_both_tests_of_a_difference_agree_where_it_is_plain_and_where_there_is_none():
    blurred = scores() + 3 * np.random.default_rng(1).standard_normal(240)
    for first, second, is_there in ((scores(), blurred, True), (scores(), scores(), False)):
        found = evaluate_difference(first, second, LABELS, PAIRS)
        expected = auroc(first, LABELS) - auroc(second, LABELS)
        for estimate in found.values():
            assert estimate.estimate == pytest.approx(expected)
            assert (estimate.p_value < 0.05) == is_there
