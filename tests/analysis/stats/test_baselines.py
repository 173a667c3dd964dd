from __future__ import annotations

import numpy as np
import pytest

from axes.analysis.stats.auroc import auroc
from axes.analysis.stats.baselines import bag_of_words_scores, bag_of_words_transfer, prompt_lengths

PAIRS = np.repeat(np.arange(60), 2)
LABELS = np.tile([True, False], 60)


def test_a_word_that_gives_the_label_away_is_found_on_rows_not_seen():
    texts = [f"topic {row // 2} {'steal' if row % 2 == 0 else 'buy'} it" for row in range(120)]
    assert auroc(bag_of_words_scores(texts, LABELS, PAIRS), LABELS) > 0.99


def test_words_that_only_name_the_pair_give_nothing_away():
    """Were pairs split between folds, the twin's label would be learnt the wrong way round."""
    texts = [f"topic{row // 2} filler" for row in range(120)]
    assert auroc(bag_of_words_scores(texts, LABELS, PAIRS), LABELS) == pytest.approx(0.5)


def test_a_bag_of_words_carries_over_to_another_set():
    texts = ["steal the car", "buy the car"] * 20
    labels = np.tile([True, False], 20)
    other = ["steal a boat", "buy a boat", "boat"]
    scores = bag_of_words_transfer(texts, labels, other)
    assert scores[0] > scores[2] > scores[1]


def test_lengths_are_in_characters():
    assert prompt_lengths(["", "abc", "é"]).tolist() == [0.0, 3.0, 1.0]
