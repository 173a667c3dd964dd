"""What an intervention does to a model, in numbers: pure functions of logits and token ids."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

# Runs of so many tokens count as repeated.
_NGRAM = 3


def opener_log_odds(
    logits: Float[Tensor, "batch vocabulary"], first_ids: Sequence[int]
) -> Float[Tensor, " batch"]:
    """Log-odds that the next token is one of `first_ids` (Arditi et al. 2024, refusal score)."""
    chances = logits.float().log_softmax(-1)
    is_opener = torch.zeros(logits.shape[-1], dtype=torch.bool, device=logits.device)
    is_opener[list(first_ids)] = True
    # Both sides are summed, since 1 minus a chance near 1 has no digits left.
    inside = chances.masked_fill(~is_opener, -torch.inf).logsumexp(-1)
    outside = chances.masked_fill(is_opener, -torch.inf).logsumexp(-1)
    return inside - outside


def divergence(
    before: Float[Tensor, "batch position vocabulary"],
    after: Float[Tensor, "batch position vocabulary"],
    mask: Bool[Tensor, "batch position"],
) -> Float[Tensor, " batch"]:
    """KL of the next-token distributions, `before` from `after`, in nats: mean over positions.

    Both are log-probabilities; `mask` says which positions hold tokens.
    """
    by_position = (before.exp() * (before - after)).sum(-1)
    return _mean(by_position, mask)


def log_perplexity(
    chances: Float[Tensor, "batch position vocabulary"],
    tokens: Int[Tensor, "batch position"],
    mask: Bool[Tensor, "batch position"],
) -> Float[Tensor, " batch"]:
    """Mean negative log-probability (nats) of every token but the first, teacher-forced.

    A text of one token has nothing to predict, and gets 0.
    """
    given = chances[:, :-1].gather(2, tokens[:, 1:, None]).squeeze(2)
    return _mean(-given, mask[:, 1:])


def repetition(token_ids: Sequence[int]) -> float:
    """Share of three-token runs that stood there before: 1 - distinct-3 (Li et al. 2016).

    >>> repetition([1, 2, 3, 4, 5]), repetition([1, 1, 1, 1, 1, 1])
    (0.0, 0.75)
    """
    grams = [tuple(token_ids[at : at + _NGRAM]) for at in range(len(token_ids) - _NGRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def longest_repeat(token_ids: Sequence[int]) -> float:
    """Length of the longest run of tokens that occurs twice, as a share of the completion.

    >>> longest_repeat([1, 2, 3, 9, 1, 2, 3, 8]), longest_repeat([1, 2, 3])
    (0.375, 0.0)
    """
    count = len(token_ids)
    longest, before = 0, [0] * (count + 1)
    for end in range(count):
        row = [0] * (count + 1)
        for other in range(end):
            if token_ids[end] == token_ids[other]:
                row[other + 1] = before[other] + 1
        before, longest = row, max(longest, *row)
    return longest / count if count else 0.0


def _mean(
    values: Float[Tensor, "batch position"], mask: Bool[Tensor, "batch position"]
) -> Float[Tensor, " batch"]:
    """Mean over the positions of the mask, and 0 where there are none."""
    counted = torch.where(mask, values, 0.0).sum(1)
    return counted / mask.sum(1).clamp(min=1)
