"""Run a model from the output of one of its blocks on, when what lies below is known already.

An experiment changes the same prompts at the same block in a hundred ways: the blocks up to there
need to be run once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from axes.ingest.models.load import LoadedModel


@contextmanager
def resume_after(
    loaded: LoadedModel, layer: int, hidden: Float[Tensor, "batch position d_model"]
) -> Iterator[None]:
    """While active, block `layer` puts out `hidden`, and the blocks before it compute nothing.

    For passes over the same batch without a cache. Hooks on the blocks see what they put out.
    """
    is_tuple = _puts_out_tuples(loaded)
    with ExitStack() as restored:
        for index in range(layer + 1):
            block = loaded.blocks[index]
            restored.callback(_put_back, block, vars(block).get("forward"))
            block.forward = _Instead(hidden if index == layer else None, is_tuple)
        yield


class _Instead:
    """A block's forward pass that hands on what it was given, or what is known to come out."""

    def __init__(self, hidden: Tensor | None, is_tuple: bool) -> None:
        self._hidden, self._is_tuple = hidden, is_tuple

    def __call__(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        hidden = hidden_states if self._hidden is None else self._hidden
        return (hidden, None) if self._is_tuple else hidden


def _put_back(block: torch.nn.Module, forward: Any) -> None:
    if forward is None:
        del block.forward
    else:
        block.forward = forward


@torch.inference_mode()
def _puts_out_tuples(loaded: LoadedModel) -> bool:
    """Whether blocks put out a tuple whose first is the hidden states: seen on one token."""
    seen: list[bool] = []
    handle = loaded.blocks[0].register_forward_hook(
        lambda _module, _args, output: seen.append(isinstance(output, tuple))
    )
    try:
        token = torch.zeros((1, 1), dtype=torch.long, device=loaded.device)
        loaded.model.base_model(input_ids=token, use_cache=False)
    finally:
        handle.remove()
    return seen[0]
