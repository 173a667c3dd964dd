from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from axes.analysis.stats.splits import grouped_folds, held_out_groups, held_out_mask, joined_groups
from axes.warehouse.errors import LabelError


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


def test_a_class_in_one_group_cannot_be_held_out():
    with pytest.raises(LabelError, match="a class lies in a single group of pairs"):
        grouped_folds(np.arange(10) < 5, np.repeat([0, 1], 5))


def test_every_training_part_holds_both_classes_where_groups_are_of_one_class():
    labels = np.repeat([True, True, True, False, False, False, False], 10)
    groups = np.repeat(np.arange(7), 10)
    for seed in range(20):
        folds = grouped_folds(labels, groups, seed=seed)
        for fold in np.unique(folds):
            assert len(np.unique(labels[folds != fold])) == 2


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=30))
def test_joined_groups_are_the_finest_that_keep_both(rows):
    first, second = (np.array(side) for side in zip(*rows, strict=True))
    found = joined_groups(first, second)
    together = (first[:, None] == first) | (second[:, None] == second)
    while not np.array_equal(wider := together @ together, together):
        together = wider
    np.testing.assert_array_equal(found[:, None] == found, together)


def test_a_part_without_a_class_is_refused():
    with pytest.raises(LabelError, match="nothing can be held out"):
        held_out_groups(np.arange(10) < 5, np.zeros(10, dtype=int), fraction=0.5, seed=0)


def test_prompts_of_one_class_alone_are_parted_too():
    drawn = held_out_groups(np.ones(10, dtype=bool), np.arange(10), fraction=0.5, seed=0)
    assert drawn.sum() == 5


def test_held_out_groups_are_whole_and_of_every_kind():
    labels = np.tile([True, False, True, False, False, True], 20)
    groups = np.repeat(np.arange(60), 2)
    drawn = held_out_groups(labels, groups, fraction=0.25, seed=3)
    assert (drawn[::2] == drawn[1::2]).all()
    assert drawn.sum() == 30
    assert labels[drawn].sum() == 15
