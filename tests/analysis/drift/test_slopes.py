"""A class's slope is that of a line with an intercept for every completion."""

from __future__ import annotations

import numpy as np
import pytest

from axes.analysis.drift.drift_statistics import class_slopes, slope_estimates, slope_terms
from axes.analysis.drift.trajectories import Trajectories
from axes.analysis.stats.auroc import Estimate
from axes.analysis.stats.bootstrap import draw_counts
from tests.drifting import plant


def difference(found: Trajectories, seed: int = 0, count: int = 400) -> Estimate:
    counts = draw_counts(
        len(found.values), strata=found.is_positive, groups=found.groups, count=count, seed=seed
    )
    return slope_estimates(slope_terms(found.values), found.is_positive, counts)[2]


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
        difference(plant(pairs=30, seed=seed), seed, count=200).p_value < 0.05
        for seed in range(300)
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
