"""AUROC of the running projection, when it is decided, and how long before the event."""

from __future__ import annotations

import numpy as np
import pytest

from axes.analysis.drift.drift_statistics import (
    change_point,
    class_slopes,
    decided_step,
    event_steps,
    lead,
    running_aurocs,
    slope_terms,
)
from axes.analysis.stats.auroc import auroc
from tests.drifting import STEPS, difference, draw, plant


def curves(found):
    counts = draw(found)
    return *running_aurocs(found.values, found.is_positive, counts), counts


def test_the_curve_is_the_auroc_of_the_mean_so_far():
    found = plant(slope=0.1, lengths=((4, STEPS), (8, STEPS)))
    curve, _, _ = curves(found)
    for step in (0, 5, STEPS - 1):
        means = np.array(
            [row[: step + 1][~np.isnan(row[: step + 1])].mean() for row in found.values]
        )
        assert curve.estimate[step] == pytest.approx(auroc(means, found.is_positive))
        assert curve.lower[step] <= curve.estimate[step] <= curve.upper[step]


def test_a_growing_difference_is_decided_later_the_slower_it_grows():
    quick, slow = (decided_step(*curves(plant(slope=slope))[:2]) for slope in (0.6, 0.2))
    assert 0 < quick.estimate < slow.estimate
    assert quick.lower <= quick.estimate <= quick.upper
    assert decided_step(*curves(plant())[:2]) is None


def test_a_curve_that_falls_below_the_bound_again_is_not_decided_before():
    found = plant(offset=3.0, noise=0.1, of_prompt=0.1)
    found.values[found.is_positive, 6] = -40.0
    found.values[found.is_positive, 7] = 50.0
    assert decided_step(*curves(found)[:2]).estimate == 7


def test_the_lead_is_from_the_decision_to_the_event():
    found = plant(offset=6.0, noise=0.1, lengths=((10, 10), (10, 10)))
    curve, resampled, counts = curves(found)
    events = event_steps(found.texts, None, found.is_positive)
    assert set(events[found.is_positive]) == {9.0} and np.isnan(events[~found.is_positive]).all()
    ahead = lead(events, curve, resampled, counts)
    assert (ahead.estimate, ahead.lower, ahead.upper) == (9.0, 9.0, 9.0)
    assert lead(events, *curves(plant(lengths=((10, 10), (10, 10))))) is None


def test_an_event_is_the_token_in_which_the_pattern_begins():
    texts = [("Well", ", I", " can", "not", " help"), ("Sure", " thing"), ("i", " cannot")]
    steps = event_steps(texts, r"I cannot", np.array([True, True, False]))
    np.testing.assert_array_equal(steps, [1.0, np.nan, 0.0])


def test_the_split_is_the_best_of_all_by_squared_error():
    random = np.random.default_rng(0)
    for _ in range(20):
        values = random.standard_normal(int(random.integers(2, 15)))
        errors = [
            sum(((part - part.mean()) ** 2).sum() for part in (values[:step], values[step:]))
            for step in range(1, len(values))
        ]
        assert change_point(values, count=1).step == 1 + int(np.argmin(errors))


def test_a_planted_jump_is_found_with_its_size():
    random = np.random.default_rng(1)
    values = np.where(np.arange(40) < 25, 0.0, 3.0) + 0.5 * random.standard_normal(40)
    found = change_point(values)
    assert found.step == 25 and found.size == pytest.approx(3.0, abs=0.4)
    assert found.p_value < 0.01


def test_values_in_random_order_are_found_changed_at_about_five_percent():
    random = np.random.default_rng(2)
    p_values = [
        change_point(random.standard_normal(16), count=99, seed=seed).p_value for seed in range(400)
    ]
    assert 8 <= sum(p <= 0.05 for p in p_values) <= 34


@pytest.mark.parametrize("values", [[], [1.0], [2.0, 2.0, 2.0]])
def test_nothing_to_split_gives_none(values):
    assert change_point(np.array(values)) is None


def test_the_class_slope_is_least_squares_with_an_intercept_for_every_completion():
    found = plant(pairs=6, slope=0.3, lengths=((2, 9), (2, 9)))
    rows, steps = np.nonzero(~np.isnan(found.values))
    kept = found.is_positive[rows]
    design = np.column_stack([steps[kept], np.eye(len(found.values))[rows[kept]]])
    expected = np.linalg.lstsq(design, found.values[rows[kept], steps[kept]], rcond=None)[0][0]
    ones = np.ones((1, len(found.values)), dtype=int)
    positive = class_slopes(slope_terms(found.values), found.is_positive, ones)[0, 0]
    assert positive == pytest.approx(expected)


def test_a_planted_drift_is_found_with_its_sign_and_size():
    for slope in (0.15, -0.15):
        found = difference(plant(slope=slope))
        assert found.lower < slope < found.upper
        assert found.estimate == pytest.approx(slope, abs=0.03)
        assert found.p_value < 0.01


def test_an_offset_of_whole_completions_is_no_drift():
    lifted = difference(plant(offset=5.0))
    assert lifted.p_value > 0.05
    assert lifted.estimate == pytest.approx(difference(plant(offset=0.0)).estimate)


def test_nothing_planted_rejects_at_about_five_percent():
    rejected = sum(
        difference(plant(pairs=30, seed=seed), 200, seed).p_value < 0.05 for seed in range(300)
    )
    assert 4 <= rejected <= 30


def test_a_single_token_has_no_slope_and_no_weight():
    found = plant(pairs=4, slope=0.1)
    alone = found.values.copy()
    alone[0, 1:] = np.nan
    assert np.isnan(slope_terms(alone).slopes[0])
    counts = np.ones((1, len(alone)), dtype=int)
    with_it = class_slopes(slope_terms(alone), found.is_positive, counts)
    without = class_slopes(slope_terms(alone[1:]), found.is_positive[1:], counts[:, 1:])
    np.testing.assert_allclose(with_it, without)
