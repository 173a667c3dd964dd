from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest

from axes.analysis.stats.splits import held_out_groups
from axes.analysis.study.robustness import thresholds
from axes.analysis.study.robustness.thresholds import labelled_curve, transfer_matrix

PAIRS = np.arange(600) // 2
LABELS = np.arange(600) % 2 == 0
CALIBRATION = held_out_groups(LABELS, PAIRS, fraction=0.5, seed=0)


def models(scale: float = 50.0, shift: float = 900.0, seed: int = 0) -> dict[str, np.ndarray]:
    """Two models that know the same; the second on another scale."""
    random = np.random.default_rng(seed)
    first, second = random.standard_normal((2, 600)) + 3 * LABELS
    return {"plain": first, "moved": shift + scale * second}


def cells(scores: dict[str, np.ndarray], labels=LABELS, split=CALIBRATION, **options) -> dict:
    """(method, fitted on, judged on) -> metric -> row."""
    rows = transfer_matrix(scores, labels, PAIRS, split, **{"resample_count": 60, **options})
    found = defaultdict(dict)
    for row in rows:
        found[row.scorer, row.fitted_on, row.model][row.metric] = row
    return found


@pytest.fixture(scope="module")
def found() -> dict:
    return cells(models())


def test_a_threshold_does_not_carry_over_to_another_scale_and_calibration_restores_it(found):
    assert len(found) == 5 * 4
    for (_, fitted_on, judged_on), cell in found.items():
        if fitted_on == judged_on:
            # A model's own threshold loses nothing.
            for row in (cell["accuracy_loss"], cell["false_positive_shift"]):
                assert row.estimate == row.lower == row.upper == 0
                assert row.p_value is None
    raw = found["uncalibrated", "plain", "moved"]
    assert raw["balanced_accuracy"].estimate == 0.5
    assert raw["false_positive_shift"].estimate > 0.8
    assert raw["accuracy_loss"].lower > 0.3
    assert raw["accuracy_loss"].p_value < 0.05
    # Holm, over the two pairs of models.
    assert raw["accuracy_loss"].p_value_adjusted == pytest.approx(2 * raw["accuracy_loss"].p_value)
    for method in ("platt", "isotonic", "quantile", "z_score"):
        restored = found[method, "plain", "moved"]
        assert restored["balanced_accuracy"].estimate > 0.88
        assert abs(restored["accuracy_loss"].estimate) < 0.04
        assert abs(restored["false_positive_shift"].estimate) < 0.08


def test_a_threshold_carries_over_where_scales_are_equal():
    loss = cells(models(scale=1.0, shift=0.0))["uncalibrated", "plain", "moved"]["accuracy_loss"]
    assert loss.estimate == pytest.approx(0, abs=0.03)
    assert loss.lower <= 0 <= loss.upper


def test_nothing_is_fitted_on_the_judged_rows(found):
    """Turning the labels of judged rows round turns every accuracy round."""
    turned = cells(models(), np.where(CALIBRATION, LABELS, ~LABELS), resample_count=2)
    for key, cell in turned.items():
        straight = found[key]["balanced_accuracy"].estimate
        assert cell["balanced_accuracy"].estimate == pytest.approx(1 - straight)


def test_the_luck_of_calibration_rows_does_not_pass_for_a_difference_between_models(monkeypatch):
    """Two models on one scale, thresholds of 20 rows each: few shifts at 5 % in 20 worlds."""
    few = held_out_groups(LABELS, PAIRS, fraction=1 / 30, seed=0)
    monkeypatch.setattr(thresholds, "CALIBRATIONS", {})
    shifted = 0
    for seed in range(20):
        found = cells(models(scale=1.0, shift=0.0, seed=seed), split=few)
        shifted += found["uncalibrated", "plain", "moved"]["false_positive_shift"].p_value < 0.05
    assert shifted <= 4


def test_a_target_rate_is_held_on_the_model_that_the_threshold_comes_from():
    found = cells(models(), target="fpr=0.05")["uncalibrated", "plain", "plain"]
    assert found["false_positive_rate"].estimate < 0.09


def test_more_labelled_prompts_restore_a_threshold_better_and_surer():
    points = labelled_curve(models(), LABELS, PAIRS, CALIBRATION, draw_count=40)
    own, borrowed = (
        {row.component: row for row in points if (row.scorer, row.model) == (scorer, "moved")}
        for scorer in ("threshold", "z_score")
    )
    assert list(own) == [10, 20, 50, 100, 200]
    assert own[10].estimate < own[200].estimate
    assert own[10].upper - own[10].lower > own[200].upper - own[200].lower
    assert own[200].estimate > 0.9
    assert borrowed[20].estimate > 0.85
    again = labelled_curve(models(), LABELS, PAIRS, CALIBRATION, draw_count=40)
    assert again == points
