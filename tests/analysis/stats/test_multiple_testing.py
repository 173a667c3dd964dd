from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import false_discovery_control

from axes.analysis.stats.multiple_testing import adjusted

P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=30).map(np.array)


@given(P_VALUES)
def test_benjamini_hochberg_is_that_of_scipy(p_values):
    found = adjusted(p_values, "benjamini_hochberg")
    assert found == pytest.approx(false_discovery_control(p_values), abs=1e-12)


@given(P_VALUES, st.floats(0.001, 0.5))
def test_holm_rejects_what_its_steps_reject(p_values, level):
    """Smallest first, each against the level over the tests left; the first failure ends it."""
    rejected = np.zeros(len(p_values), dtype=bool)
    for step, index in enumerate(np.argsort(p_values, kind="stable")):
        if p_values[index] * (len(p_values) - step) > level:
            break
        rejected[index] = True
    np.testing.assert_array_equal(adjusted(p_values) <= level, rejected)


@pytest.mark.parametrize("correction", ["holm", "benjamini_hochberg"])
def test_what_is_no_test_counts_for_none(correction):
    found = adjusted(np.array([0.01, np.nan, 0.02]), correction)
    assert np.isnan(found[1])
    assert found[[0, 2]].tolist() == adjusted(np.array([0.01, 0.02]), correction).tolist()


def test_holm_holds_the_chance_of_any_false_rejection():
    random = np.random.default_rng(0)
    any_false = [(adjusted(random.random(30)) < 0.05).any() for _ in range(1000)]
    assert 0.03 <= np.mean(any_false) <= 0.07
