from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from analysis.splits import grouped_folds, held_out_mask


def test_groups_are_never_split_and_classes_are_balanced():
    groups = np.repeat(np.arange(100), 2)
    labels = np.tile([True, False], 100)
    folds = grouped_folds(labels, groups, seed=1)
    assert set(folds) == set(range(5))
    for group in range(100):
        assert len(set(folds[groups == group])) == 1
    for fold in range(5):
        assert labels[folds == fold].mean() == 0.5


def test_folds_are_seeded():
    groups, labels = np.arange(40), np.arange(40) % 2 == 0
    same = grouped_folds(labels, groups, seed=1)
    np.testing.assert_array_equal(same, grouped_folds(labels, groups, seed=1))
    assert (same != grouped_folds(labels, groups, seed=2)).any()


def test_few_groups_make_few_folds():
    folds = grouped_folds(np.array([True, False] * 3), np.repeat([0, 1, 2], 2), seed=0)
    assert set(folds) == {0, 1, 2}


@given(st.integers(2, 500), st.floats(0.01, 0.99), st.integers(0, 5))
def test_a_held_out_part_is_never_all_and_never_nothing(count, fraction, seed):
    mask = held_out_mask(count, fraction=fraction, seed=seed)
    assert 1 <= mask.sum() < count
    assert abs(mask.sum() - fraction * count) <= 1
    np.testing.assert_array_equal(mask, held_out_mask(count, fraction=fraction, seed=seed))
