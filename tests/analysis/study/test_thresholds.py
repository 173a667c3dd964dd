from __future__ import annotations

import numpy as np
import pytest

from axes.analysis.stats.splits import held_out_groups
from axes.analysis.study.thresholds import ModelScores, labelled_curve, transfer_matrix

PAIRS = np.arange(600) // 2
LABELS = np.arange(600) % 2 == 0
CALIBRATION = held_out_groups(LABELS, PAIRS, fraction=0.5, seed=0)


def models(scale: float = 50.0, shift: float = 900.0, seed: int = 0) -> list[ModelScores]:
    """Two models that know the same; the second on another scale."""
    random = np.random.default_rng(seed)
    first, second = random.standard_normal((2, 600)) + 3 * LABELS
    return [ModelScores("plain", first), ModelScores("moved", shift + scale * second)]


def cells(scores: list[ModelScores], **options) -> dict:
    found = transfer_matrix(scores, LABELS, PAIRS, CALIBRATION, resample_count=60, **options)
    return {(cell.method, cell.fitted_on, cell.judged_on): cell for cell in found}


@pytest.fixture(scope="module")
def found() -> dict:
    return cells(models())


def test_a_threshold_does_not_carry_over_to_another_scale_and_calibration_restores_it(found):
    assert len(found) == 5 * 4
    raw = found["uncalibrated", "plain", "moved"]
    assert raw.balanced_accuracy.estimate == 0.5
    assert raw.false_positive_shift.estimate > 0.8
    assert raw.accuracy_loss.lower > 0.3
    assert raw.accuracy_loss.p_value < 0.05
    for method in ("platt", "isotonic", "quantile", "z_score"):
        restored = found[method, "plain", "moved"]
        assert restored.balanced_accuracy.estimate > 0.88
        assert abs(restored.accuracy_loss.estimate) < 0.04
        assert abs(restored.false_positive_shift.estimate) < 0.08


def test_a_threshold_carries_over_where_scales_are_equal():
    found = cells(models(scale=1.0, shift=0.0))["uncalibrated", "plain", "moved"]
    assert found.accuracy_loss.estimate == pytest.approx(0, abs=0.03)
    assert found.accuracy_loss.lower <= 0 <= found.accuracy_loss.upper


def test_a_models_own_threshold_loses_nothing(found):
    for (_, fitted_on, judged_on), cell in found.items():
        if fitted_on == judged_on:
            assert cell.accuracy_loss.estimate == cell.false_positive_shift.estimate == 0
            assert cell.accuracy_loss.p_value == 1


def test_nothing_is_fitted_on_the_judged_rows(found):
    """Turning the labels of judged rows round turns every accuracy round."""
    turned = transfer_matrix(
        models(),
        np.where(CALIBRATION, LABELS, ~LABELS),
        PAIRS,
        CALIBRATION,
        resample_count=2,
    )
    for cell in turned:
        straight = found[cell.method, cell.fitted_on, cell.judged_on].balanced_accuracy
        assert cell.balanced_accuracy.estimate == pytest.approx(1 - straight.estimate)


def test_the_luck_of_calibration_rows_does_not_pass_for_a_difference_between_models():
    """Two models on one scale, thresholds of 20 rows each: few shifts at 5 % in 20 worlds."""
    few = held_out_groups(LABELS, PAIRS, fraction=1 / 30, seed=0)
    shifted = 0
    for seed in range(20):
        cell = transfer_matrix(
            models(scale=1.0, shift=0.0, seed=seed), LABELS, PAIRS, few, resample_count=60
        )[1]
        shifted += cell.false_positive_shift.p_value < 0.05
    assert shifted <= 4


def test_a_target_rate_is_held_on_the_model_that_the_threshold_comes_from():
    found = cells(models(), target="fpr=0.05")
    assert found["uncalibrated", "plain", "plain"].false_positive_rate.estimate < 0.09


def test_more_labelled_prompts_restore_a_threshold_better_and_surer():
    points = labelled_curve(models(), LABELS, PAIRS, CALIBRATION, draw_count=40)
    own = {
        point.labelled_count: point.balanced_accuracy
        for point in points
        if (point.method, point.judged_on) == ("threshold", "moved")
    }
    assert list(own) == [10, 20, 50, 100, 200]
    assert own[10].estimate < own[200].estimate
    assert own[10].upper - own[10].lower > own[200].upper - own[200].lower
    assert own[200].estimate > 0.9
    borrowed = {
        point.labelled_count: point.balanced_accuracy.estimate
        for point in points
        if (point.method, point.judged_on) == ("z_score", "moved")
    }
    assert borrowed[20] > 0.85
    again = labelled_curve(models(), LABELS, PAIRS, CALIBRATION, draw_count=40)
    assert again == points
