"""How the positions of a prompt become one vector.

A pooling is two pure functions: `span` says which positions of a rendered prompt it reads, `reduce`
makes one vector of what stands there. Neither sees padding, so that its side cannot matter.

To add one, put it in `POOLINGS`; or, without touching this file, write

    from ingest.pooling import Pooling, mean

    POOLING = Pooling("last10_mean", lambda count, user_end: (max(count - 10, 0), count), mean)

into a file of your own and give it as `--pooling my_pooling.py`.
"""

from __future__ import annotations

import runpy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from axes.ingest.forward.batching import to_device
from axes.ingest.models.download import file_hash
from axes.warehouse.errors import ModelError
from axes.warehouse.names import did_you_mean

Span = Callable[[int, int | None], tuple[int, int] | None]
Reduce = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Pooling:
    """A pooling by name.

    `span(token_count, user_end)` gives the first position and one past the last, or None where
    there is none; `user_end` is one past the user's own text, None where that is not known.
    `reduce(hidden, mask)` takes `[batch, position, d_model]` in float32 and the mask of the
    positions that count, and gives `[batch, d_model]`.
    """

    name: str
    span: Span
    reduce: Reduce


def mean(
    hidden: Float[Tensor, "batch position d_model"], mask: Bool[Tensor, "batch position"]
) -> Float[Tensor, "batch d_model"]:
    """Mean over the positions of the mask.

    >>> mean(torch.tensor([[[1.0], [2.0], [9.0]]]), torch.tensor([[True, True, False]]))
    tensor([[1.5000]])
    """
    # where, not a product: what the mask hides may hold anything, NaN included.
    return torch.where(mask[..., None], hidden, 0.0).sum(1) / mask.sum(1, keepdim=True)


def maximum(
    hidden: Float[Tensor, "batch position d_model"], mask: Bool[Tensor, "batch position"]
) -> Float[Tensor, "batch d_model"]:
    """The largest value of each dimension over the positions of the mask."""
    return torch.where(mask[..., None], hidden, -torch.inf).amax(1)


class SpanReader:
    """Reads one span of each row of a batch; made once for all layers."""

    def __init__(self, spans: Sequence[tuple[int, int]]) -> None:
        bounds = torch.tensor(spans)
        start, end = bounds[:, :1], bounds[:, 1:]
        index = start + torch.arange(int((end - start).max()))
        self._mask = index < end
        self._index = torch.where(self._mask, index, start)
        self._placed: dict[tuple[torch.device, int], tuple[Tensor, Tensor]] = {}

    def read(
        self, hidden: Float[Tensor, "batch position d_model"], reduce: Reduce
    ) -> Float[Tensor, "batch d_model"]:
        """`reduce` over the positions of each row's span, in float32 whatever comes in.

        >>> reader = SpanReader([(0, 2), (2, 3)])
        >>> reader.read(torch.arange(6.0).reshape(2, 3, 1), mean).tolist()
        [[0.5], [5.0]]
        """
        places, mask = self._place(hidden.device, hidden.shape[1])
        # Whole rows of the flattened batch: a gather looks every number up, at ten times the cost.
        picked = hidden.reshape(-1, hidden.shape[2]).index_select(0, places)
        return reduce(picked.view(*mask.shape, -1).float(), mask)

    def _place(self, device: torch.device, width: int) -> tuple[Tensor, Tensor]:
        """Where the spans lie in batches of this width, counted over all rows, and the mask."""
        if (device, width) not in self._placed:
            places = width * torch.arange(len(self._index))[:, None] + self._index
            self._placed[device, width] = (
                to_device(places.flatten(), device),
                to_device(self._mask, device),
            )
        return self._placed[device, width]


def find_pooling(name: str) -> Pooling:
    """A pooling by its name, or out of a Python file that defines `POOLING`.

    One from a file is stored as NAME@HASH, the hash being the file's: changed, it is another.
    Raises `ModelError` for a name that is neither.
    """
    if name in POOLINGS:
        return POOLINGS[name]
    path = Path(name).expanduser()
    if path.suffix != ".py" or not path.is_file():
        raise ModelError(
            f"unknown pooling {name}{did_you_mean(name, POOLINGS)}: "
            f"it is one of {', '.join(POOLINGS)}, or a .py file that defines POOLING"
        )
    found = runpy.run_path(str(path)).get("POOLING")
    if not isinstance(found, Pooling):
        raise ModelError(f"{path} defines no POOLING of type axes.ingest.forward.pooling.Pooling")
    return replace(found, name=f"{found.name}@{file_hash(path)[:8]}")


def _last(count: int) -> Span:
    return lambda token_count, _user_end: (max(token_count - count, 0), token_count)


def _all(token_count: int, _user_end: int | None) -> tuple[int, int]:
    return 0, token_count


def _instruction_last(_token_count: int, user_end: int | None) -> tuple[int, int] | None:
    return None if user_end is None else (user_end - 1, user_end)


def _after_instruction(token_count: int, user_end: int | None) -> tuple[int, int] | None:
    return None if user_end in (None, token_count) else (user_end, token_count)


# The positions of a prompt under a template tell different things apart (arXiv 2507.11878):
# instruction_last is the last token of the user's text, post_template_mean all that follow it.
POOLINGS = {
    pooling.name: pooling
    for pooling in (
        Pooling("last5_mean", _last(5), mean),
        Pooling("last", _last(1), mean),
        Pooling("mean", _all, mean),
        Pooling("max", _all, maximum),
        Pooling("instruction_last", _instruction_last, mean),
        Pooling("post_template_mean", _after_instruction, mean),
    )
}
