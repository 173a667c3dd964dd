"""One change of mean: the best of all splits, and how often random orders have one as good."""

from __future__ import annotations

import numpy as np
import pytest

from axes.analysis.drift.drift_statistics import change_point


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
