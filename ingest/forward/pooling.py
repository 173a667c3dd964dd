"""How the positions of a prompt become one vector.

A pooling is two pure functions: `span` says which positions of a rendered prompt it reads, `reduce`
makes one vector of their activations. Neither sees padding, so that its side cannot matter.

To add one, put it in `POOLINGS`, whose names load without torch; or, without touching this file,
write

    from axes.ingest.forward.pooling import Pooling, mean

    POOLING = Pooling("last10_mean", lambda count, user_end: (max(count - 10, 0), count), mean)

into a file and give it as `--pooling my_pooling.py`.
"""

from __future__ import annotations

import runpy
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from axes.warehouse.errors import ModelError
from axes.warehouse.names import STORE_DTYPES, did_you_mean

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor

    from axes.ingest.forward.templates import Rendered

Span = Callable[[int, int | None], tuple[int, int] | None]
Reduce = Callable[[Any, Any], Any]


@dataclass(frozen=True)
class Pooling:
    """A pooling by name.

    `span(token_count, user_end)` gives the first position and one past the last, or None where
    it has none; `user_end` is one past the user's text, None where that is unknown.
    `reduce(hidden, mask)` takes `[batch, position, d_model]` in float32 and the mask of the
    positions that count, and gives `[batch, d_model]`. With `is_of_content`, `span` sees and counts
    the tokens of the user's text alone, without those of a template and without special ones.
    """

    name: str
    span: Span
    reduce: Reduce
    is_of_content: bool = False

    def positions(self, prompt: Rendered) -> tuple[int, int] | None:
        """The positions of a prompt that the pooling reads, as `span` gives them.

        None for a pooling of the content where the user's text is empty, or its place unknown.
        """
        start, end = prompt.user_start, prompt.user_end
        if not self.is_of_content:
            return self.span(len(prompt.token_ids), end)
        if start is None or end is None or start >= end:
            return None
        span = self.span(end - start, end - start)
        return None if span is None else (start + span[0], start + span[1])


def mean(
    hidden: Float[Tensor, "batch position d_model"], mask: Bool[Tensor, "batch position"]
) -> Float[Tensor, "batch d_model"]:
    """Mean over the positions of the mask.

    >>> import torch
    >>> mean(torch.tensor([[[1.0], [2.0], [9.0]]]), torch.tensor([[True, True, False]]))
    tensor([[1.5000]])
    """
    import torch

    # where, not a product: what the mask hides may hold anything, NaN included.
    return torch.where(mask[..., None], hidden, 0.0).sum(1) / mask.sum(1, keepdim=True)


def maximum(
    hidden: Float[Tensor, "batch position d_model"], mask: Bool[Tensor, "batch position"]
) -> Float[Tensor, "batch d_model"]:
    """The largest value of each dimension over the positions of the mask."""
    import torch

    return torch.where(mask[..., None], hidden, -torch.inf).amax(1)


def find_pooling(name: str) -> Pooling:
    """A pooling by its name, or out of a Python file that defines `POOLING`.

    One from a file is stored as NAME@HASH, the hash being the file's: changed, it is another.
    NAME+bfloat16 and NAME+float16 give its vectors rounded to that. Raises `ModelError` for any
    other name.
    """
    if name in POOLINGS:
        return POOLINGS[name]
    unrounded, _, dtype = name.rpartition("+")
    if dtype in STORE_DTYPES:
        return _rounded(find_pooling(unrounded), dtype)
    from axes.ingest.models.download import file_hash

    path = Path(name).expanduser()
    if path.suffix != ".py" or not path.is_file():
        raise ModelError(
            f"unknown pooling {name}{did_you_mean(name, POOLINGS)}: "
            f"it is one of {', '.join(POOLINGS)}, or a .py file that defines POOLING"
        )
    pooling = runpy.run_path(str(path)).get("POOLING")
    if not isinstance(pooling, Pooling):
        raise ModelError(f"{path} defines no POOLING of type axes.ingest.forward.pooling.Pooling")
    return replace(pooling, name=f"{pooling.name}@{file_hash(path)[:8]}")


def _rounded(pooling: Pooling, dtype: str) -> Pooling:
    def reduce(hidden: Any, mask: Any) -> Any:
        import torch

        return pooling.reduce(hidden, mask).to(getattr(torch, dtype)).float()

    return replace(pooling, name=f"{pooling.name}+{dtype}", reduce=reduce)


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
# The largest value over the content separates best in arXiv 2604.18901.
POOLINGS = {
    pooling.name: pooling
    for pooling in (
        Pooling("last5_mean", _last(5), mean),
        Pooling("last", _last(1), mean),
        Pooling("mean", _all, mean),
        Pooling("max", _all, maximum),
        Pooling("instruction_last", _instruction_last, mean),
        Pooling("post_template_mean", _after_instruction, mean),
        Pooling("content_mean", _all, mean, is_of_content=True),
        Pooling("content_max", _all, maximum, is_of_content=True),
    )
}
