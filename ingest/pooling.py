"""How the positions of a prompt become one vector: pure functions `(hidden, mask) -> vector`.

Every pooling reads the mask, never a position counted from the padded end, so that left and right
padding give the same vector. To add one, write the function and its span and list it in `POOLINGS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Pool = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Pooling:
    """A pooling, and the positions it reads: `span(token_count) -> (start, end)`, end exclusive."""

    name: str
    pool: Pool
    span: Callable[[int], tuple[int, int]]


def mean_of_last(
    hidden: Float[Tensor, "batch position d_model"],
    mask: Bool[Tensor, "batch position"],
    count: int,
) -> Float[Tensor, "batch d_model"]:
    """Mean over the last `count` unmasked positions, or over all where a prompt has fewer.

    Accumulated in float32 whatever the dtype of `hidden`.

    >>> hidden = torch.arange(4.0).reshape(1, 4, 1)
    >>> mean_of_last(hidden, torch.tensor([[True, True, True, False]]), 2)
    tensor([[1.5000]])
    """
    from_end = mask.flip(1).cumsum(1).flip(1)
    chosen = mask & (from_end <= count)
    order = chosen.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :count]
    weight = chosen.gather(1, order).unsqueeze(-1)
    picked = hidden.gather(1, order.unsqueeze(-1).expand(-1, -1, hidden.shape[-1])).float()
    # where, not a product: a padded position may hold anything, NaN included.
    return torch.where(weight, picked, 0.0).sum(1) / weight.sum(1)


def mean_of_all(
    hidden: Float[Tensor, "batch position d_model"], mask: Bool[Tensor, "batch position"]
) -> Float[Tensor, "batch d_model"]:
    """Mean over every unmasked position, in float32."""
    return mean_of_last(hidden, mask, hidden.shape[1])


def _last(hidden: Tensor, mask: Tensor) -> Tensor:
    return mean_of_last(hidden, mask, 1)


def _last5_mean(hidden: Tensor, mask: Tensor) -> Tensor:
    return mean_of_last(hidden, mask, 5)


POOLINGS = {
    pooling.name: pooling
    for pooling in (
        Pooling("last5_mean", _last5_mean, lambda count: (max(count - 5, 0), count)),
        Pooling("last", _last, lambda count: (count - 1, count)),
        Pooling("mean", mean_of_all, lambda count: (0, count)),
    )
}
