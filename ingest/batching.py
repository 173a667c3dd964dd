"""Batches of prompts of like length, so that a forward pass spends no time on padding."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor

# Measured on two CPU cores; larger batches were no faster there.
DEFAULT_TOKEN_BUDGET = 1024


def plan_batches(lengths: Sequence[int], token_budget: int) -> list[list[int]]:
    """Group prompt indices into batches whose padded size stays within `token_budget` tokens.

    Longest first, so that a budget that does not fit the memory fails at once and not after an
    hour. A prompt longer than the budget gets a batch of its own.

    >>> plan_batches([2, 9, 3, 2], token_budget=6)
    [[1], [2, 0], [3]]
    """
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    batches: list[list[int]] = []
    for index in order:
        if batches and lengths[batches[-1][0]] * (len(batches[-1]) + 1) <= token_budget:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def pad(
    rows: Sequence[Sequence[int]], pad_id: int, *, side: str = "right"
) -> tuple[Int[Tensor, "batch position"], Bool[Tensor, "batch position"]]:
    """Token ids of one batch padded to its longest row, and the mask of real positions.

    >>> pad([[5, 6, 7], [8]], pad_id=0, side="left")[0].tolist()
    [[5, 6, 7], [0, 0, 8]]
    """
    width = max(len(row) for row in rows)
    tokens = torch.full((len(rows), width), pad_id, dtype=torch.long)
    mask = torch.zeros((len(rows), width), dtype=torch.bool)
    for index, row in enumerate(rows):
        place = slice(0, len(row)) if side == "right" else slice(width - len(row), width)
        tokens[index, place] = torch.tensor(row, dtype=torch.long)
        mask[index, place] = True
    return tokens, mask


def positions(mask: Bool[Tensor, "batch position"]) -> Int[Tensor, "batch position"]:
    """Position ids that count real tokens only, so that the side of the padding does not matter.

    >>> positions(torch.tensor([[False, True, True]])).tolist()
    [[0, 0, 1]]
    """
    return (mask.long().cumsum(1) - 1).clamp(min=0)
