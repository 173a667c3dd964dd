from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from axes.analysis.stats.splits import (
    grouped_folds,
    held_out_groups,
    held_out_mask,
    joined_groups,
    match,
    near_duplicate_clusters,
    standardised_difference,
)
from axes.warehouse.errors import LabelError


def test_groups_are_never_split_and_classes_are_balanced():
    groups = np.repeat(np.arange(100), 2)
    labels = np.tile([True, False], 100)
    folds = grouped_folds(labels, groups, seed=1)
    np.testing.assert_array_equal(folds, grouped_folds(labels, groups, seed=1))
    assert (folds != grouped_folds(labels, groups, seed=2)).any()
    assert set(folds) == set(range(5))
    for group in range(100):
        assert len(set(folds[groups == group])) == 1
    for fold in range(5):
        assert labels[folds == fold].mean() == 0.5
    # Every training part holds both classes where groups are of one class.
    labels, groups = np.repeat(np.arange(7) < 3, 10), np.repeat(np.arange(7), 10)
    for seed in range(20):
        folds = grouped_folds(labels, groups, seed=seed)
        assert all(len(np.unique(labels[folds != fold])) == 2 for fold in folds)


@given(st.integers(2, 500), st.floats(0.01, 0.99), st.integers(0, 5))
def test_a_held_out_part_is_never_all_and_never_nothing(count, fraction, seed):
    mask = held_out_mask(count, fraction=fraction, seed=seed)
    assert 1 <= mask.sum() < count
    assert abs(mask.sum() - fraction * count) <= 1
    np.testing.assert_array_equal(mask, held_out_mask(count, fraction=fraction, seed=seed))


def test_groups_of_one_class_and_of_both_are_dealt_and_drawn_evenly_each():
    labels = np.repeat([[True, True], [True, False], [False, False]], 10, axis=0).ravel()
    for seed in range(5):
        drawn = held_out_groups(labels, np.arange(60) // 2, fraction=0.3, seed=seed)
        assert drawn[::2].reshape(3, 10).sum(axis=1).tolist() == [3, 3, 3]
        fold_of_group = grouped_folds(labels, np.arange(60) // 2, seed=seed)[::2]
        for kind in fold_of_group.reshape(3, 10):
            assert np.bincount(kind).tolist() == [2] * 5


def test_few_groups_make_few_folds_and_a_class_in_one_group_cannot_be_held_out():
    folds = grouped_folds(np.array([True, False] * 3), np.repeat([0, 1, 2], 2), seed=0)
    assert set(folds) == {0, 1, 2}
    with pytest.raises(LabelError, match="a class lies in a single group of pairs"):
        grouped_folds(np.arange(10) < 5, np.repeat([0, 1], 5))
    with pytest.raises(LabelError, match="nothing can be held out"):
        held_out_groups(np.arange(10) < 5, np.zeros(10, dtype=int), fraction=0.5, seed=0)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=30))
def test_joined_groups_are_the_finest_that_keep_both(rows):
    first, second = (np.array(side) for side in zip(*rows, strict=True))
    found = joined_groups(first, second)
    together = (first[:, None] == first) | (second[:, None] == second)
    while not np.array_equal(wider := together @ together, together):
        together = wider
    np.testing.assert_array_equal(found[:, None] == found, together)


def test_held_out_groups_are_whole_and_of_every_kind():
    labels = np.tile([True, False, True, False, False, True], 20)
    groups = np.repeat(np.arange(60), 2)
    drawn = held_out_groups(labels, groups, fraction=0.25, seed=3)
    assert (drawn[::2] == drawn[1::2]).all()
    assert drawn.sum() == 30
    assert labels[drawn].sum() == 15
    alone = held_out_groups(np.ones(10, dtype=bool), np.arange(10), fraction=0.5, seed=0)
    assert alone.sum() == 5


TEXTS = [
    "Write a short poem about the sea in winter.",
    "Explain how a bicycle pump works to a child.",
    "write a short  poem about the sea in the winter",
    "List three countries that border Austria.",
    "Explain how a bicycle pump works to a small child!",
    "Hi",
    "hi",
]


def test_nearly_the_same_text_is_one_cluster_and_others_are_not():
    assert near_duplicate_clusters(TEXTS).tolist() == [0, 1, 0, 2, 1, 3, 3]
    # These share one five-gram of three, and the overlap is exact.
    assert near_duplicate_clusters(["abcdef", "abcdeg"], least_overlap=1 / 3).tolist() == [0, 0]
    # A text of less than five letters is one piece.
    assert near_duplicate_clusters(["ab", "b"], least_overlap=1 / 3).tolist() == [0, 1]
    assert near_duplicate_clusters(["abcdef", "abcdeg"], least_overlap=0.34).tolist() == [0, 1]


def test_clusters_do_not_depend_on_the_order_of_the_texts():
    order = np.random.default_rng(0).permutation(len(TEXTS))
    found = near_duplicate_clusters(TEXTS)[order]
    again = near_duplicate_clusters([TEXTS[index] for index in order])
    np.testing.assert_array_equal(found[:, None] == found, again[:, None] == again)


def test_a_chain_of_copies_is_one_cluster():
    """Connected, although the ends share little."""
    words = [f"word{number}" for number in range(40)]
    chain = [" ".join(words[start : start + 20]) for start in range(0, 20, 4)]
    assert set(near_duplicate_clusters(chain)) == {0}
    assert len(set(near_duplicate_clusters([chain[0], chain[-1]]))) == 2


def test_pairs_are_of_both_classes_disjoint_and_within_the_caliper():
    random = np.random.default_rng(0)
    is_positive = random.random(80) < 0.4
    values = random.standard_normal(80) + is_positive
    pairs = match(values, is_positive)
    assert len(np.unique(pairs)) == pairs.size > 0
    assert is_positive[pairs[:, 0]].all() and not is_positive[pairs[:, 1]].any()
    spread = np.sqrt((values[is_positive].var() + values[~is_positive].var()) / 2)
    assert np.abs(np.diff(values[pairs])).max() <= 0.2 * spread
    # Classes far apart have no pairs, and neither has one class.
    values = np.array([0.0, 0.1, 9.0, 9.1])
    assert match(values, values > 5).shape == match(values, values > -1).shape == (0, 2)


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
