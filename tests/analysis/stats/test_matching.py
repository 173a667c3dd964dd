"""Matched pairs are near each other, disjoint, and of least distance together."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from axes.analysis.stats.splits import match, standardised_difference


def test_pairs_are_of_both_classes_disjoint_and_within_the_caliper():
    random = np.random.default_rng(0)
    is_positive = random.random(80) < 0.4
    values = random.standard_normal(80) + is_positive
    pairs = match(values, is_positive)
    assert len(np.unique(pairs)) == pairs.size > 0
    assert is_positive[pairs[:, 0]].all() and not is_positive[pairs[:, 1]].any()
    spread = np.sqrt((values[is_positive].var() + values[~is_positive].var()) / 2)
    assert np.abs(np.diff(values[pairs])).max() <= 0.2 * spread


def test_matching_takes_away_the_difference_it_matches_on():
    random = np.random.default_rng(1)
    is_positive = np.arange(200) % 2 == 0
    values = random.standard_normal(200) + is_positive
    kept = match(values, is_positive).ravel()
    assert standardised_difference(values, is_positive) > 0.8
    assert abs(standardised_difference(values[kept], is_positive[kept])) < 0.1


def test_the_total_distance_is_the_least_there_is():
    random = np.random.default_rng(2)
    is_positive = np.arange(10) < 5
    values = random.standard_normal(10)
    pairs = match(values, is_positive, caliper=100.0)
    least = min(
        np.abs(values[:5] - values[list(order)]).sum() for order in permutations(range(5, 10))
    )
    assert np.abs(values[pairs[:, 0]] - values[pairs[:, 1]]).sum() == pytest.approx(least)


def test_classes_far_apart_have_no_pairs():
    values = np.array([0.0, 0.1, 9.0, 9.1])
    assert match(values, values > 5).shape == (0, 2)
    assert match(values, np.ones(4, dtype=bool)).shape == (0, 2)
