"""Curves with two bands: pointwise for a step, simultaneous for the whole."""

from __future__ import annotations

import numpy as np

from axes.analysis.stats.bootstrap import LEAST_COMPLETIONS, draw_counts, mean_difference
from tests.drifting import plant


def curve(found, count=300, seed=0):
    counts = draw_counts(
        len(found.values), strata=found.is_positive, groups=found.groups, count=count, seed=seed
    )
    return mean_difference(found.values, found.is_positive, counts)


def test_the_curve_is_the_difference_of_the_means_of_who_is_there():
    found = plant(lengths=((3, 12), (6, 20)))
    drawn = curve(found)
    for index, step in enumerate(drawn.steps):
        there = ~np.isnan(found.values[:, step])
        positive = found.values[there & found.is_positive, step]
        negative = found.values[there & ~found.is_positive, step]
        assert (drawn.positive_counts[index], drawn.negative_counts[index]) == (
            len(positive),
            len(negative),
        )
        np.testing.assert_allclose(drawn.estimate[index], positive.mean() - negative.mean())


def test_steps_that_few_reach_are_left_out():
    found = plant(lengths=((3, 12), (6, 20)))
    drawn = curve(found)
    assert min(drawn.positive_counts.min(), drawn.negative_counts.min()) >= LEAST_COMPLETIONS
    assert drawn.steps.max() < 12
    few = plant(pairs=LEAST_COMPLETIONS - 1)
    assert not len(curve(few).steps)


def test_the_simultaneous_band_holds_the_whole_true_curve_and_the_pointwise_does_not():
    worlds = [
        (curve(plant(slope=0.1, offset=1.0, of_completion=0.1, seed=seed), seed=seed))
        for seed in range(120)
    ]
    truth = 1.0 + 0.1 * worlds[0].steps
    whole = [((drawn.band_lower <= truth) & (truth <= drawn.band_upper)).all() for drawn in worlds]
    pointwise = [((drawn.lower <= truth) & (truth <= drawn.upper)) for drawn in worlds]
    assert np.mean(whole) >= 0.87
    assert np.mean([held.all() for held in pointwise]) < 0.75
    assert 0.90 <= np.mean(pointwise) <= 0.98
