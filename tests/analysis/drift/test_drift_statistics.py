"""AUROC of the running projection, when it is decided, and how long before the event."""

from __future__ import annotations

import numpy as np
import pytest

from axes.analysis.drift.drift_statistics import (
    decided_step,
    event_steps,
    lead,
    running_aurocs,
    running_means,
)
from axes.analysis.stats.auroc import auroc
from axes.analysis.stats.bootstrap import draw_counts
from tests.drifting import STEPS, plant


def curves(found, count=200):
    counts = draw_counts(
        len(found.values), strata=found.is_positive, groups=found.groups, count=count, seed=0
    )
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


def test_an_ended_completion_keeps_its_mean():
    found = plant(lengths=((4, 9), (4, 9)))
    running = running_means(found.values)
    np.testing.assert_allclose(running[:, -1], np.nanmean(found.values, axis=1))


def test_a_growing_difference_is_decided_later_the_slower_it_grows():
    quick, slow = (decided_step(*curves(plant(slope=slope))[:2]) for slope in (0.6, 0.2))
    assert 0 < quick.estimate < slow.estimate
    assert quick.lower <= quick.estimate <= quick.upper
    assert decided_step(*curves(plant())[:2]) is None


def test_a_curve_that_falls_below_the_bound_again_is_not_decided_before():
    found = plant(offset=3.0, noise=0.1, of_completion=0.1)
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
