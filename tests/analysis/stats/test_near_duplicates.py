from __future__ import annotations

import numpy as np

from axes.analysis.stats.splits import near_duplicate_clusters

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


def test_the_overlap_asked_for_is_exact():
    """abcdef and abcdeg share one five-gram of three."""
    assert near_duplicate_clusters(["abcdef", "abcdeg"], least_overlap=1 / 3).tolist() == [0, 0]
    assert near_duplicate_clusters(["abcdef", "abcdeg"], least_overlap=0.34).tolist() == [0, 1]
