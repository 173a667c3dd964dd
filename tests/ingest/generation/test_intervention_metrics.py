"""Outcomes of steering agree with their definitions, and padding never counts."""

from __future__ import annotations

import math

import pytest
import torch

from axes.ingest.generation.intervention_metrics import (
    divergence,
    log_perplexity,
    longest_repeat,
    opener_log_odds,
    repetition,
)

MASK = torch.tensor([[True, True, True], [True, True, False]])


def chances(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 3, 5, generator=generator).log_softmax(-1)


def test_the_log_odds_of_openers_are_those_of_their_summed_chance():
    logits = torch.tensor([[0.0, 1.0, 2.0, -1.0]])
    chance = logits.softmax(-1)[0, [1, 3]].sum()
    expected = torch.log(chance / (1 - chance))
    torch.testing.assert_close(opener_log_odds(logits, [1, 3])[0], expected)


def test_log_odds_keep_their_digits_where_the_chance_is_near_one():
    logits = torch.tensor([[60.0, 0.0, 0.0]])
    torch.testing.assert_close(opener_log_odds(logits, [0])[0], torch.tensor(60 - math.log(2)))


def test_divergence_is_zero_from_itself_positive_from_another_and_blind_to_padding():
    before, after = chances(0), chances(1)
    assert divergence(before, before, MASK).abs().max() == 0
    by_hand = (before.exp() * (before - after)).sum(-1)
    expected = torch.stack([by_hand[0].mean(), by_hand[1, :2].mean()])
    torch.testing.assert_close(divergence(before, after, MASK), expected)
    assert (expected > 0).all()
    padded = after.clone()
    padded[1, 2] = math.nan
    torch.testing.assert_close(divergence(before, padded, MASK), expected)


def test_log_perplexity_is_the_mean_loss_of_the_tokens_that_follow():
    given = chances(2)
    tokens = torch.tensor([[0, 3, 1], [2, 4, 0]])
    expected = [-(given[0, 0, 3] + given[0, 1, 1]) / 2, -given[1, 0, 4]]
    torch.testing.assert_close(log_perplexity(given, tokens, MASK), torch.stack(expected))


@pytest.mark.parametrize(
    ("tokens", "repeated", "longest"),
    [
        ([], 0.0, 0.0),
        ([7], 0.0, 0.0),
        ([7, 8], 0.0, 0.0),
        ([7, 7], 0.0, 0.5),
        ([1, 2, 3, 1, 2, 3], 0.25, 0.5),
        ([5] * 8, 5 / 6, 7 / 8),
    ],
)
def test_repetition_is_found_and_short_completions_have_none(tokens, repeated, longest):
    assert repetition(tokens) == pytest.approx(repeated)
    assert longest_repeat(tokens) == pytest.approx(longest)
