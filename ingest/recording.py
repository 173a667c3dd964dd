"""Record what the blocks of a model put out, in one forward pass.

The output of block `layer` is the residual stream after it (site `resid_post`), before any final
norm: HF's `hidden_states[layer + 1]`, except after the last block, whose entry there is normed.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from ingest.batching import positions

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SITE = "resid_post"

Receive = Callable[[int, Tensor], None]


class _AllRecorded(Exception):
    """Leaves a forward pass whose remaining blocks nobody asked for."""


@contextmanager
def record_blocks(
    blocks: Sequence[torch.nn.Module],
    layers: Sequence[int],
    receive: Receive,
    *,
    leaves_early: bool = False,
) -> Iterator[None]:
    """While active, call `receive(layer, hidden)` with each block's output `[batch, position, d]`.

    The tensor is the model's own: reduce or copy it, do not keep or change it. With `leaves_early`
    the body of the `with` ends when the highest of `layers` is done: blocks above are not run.
    """
    highest = max(layers)

    def hook(layer: int) -> Callable[..., None]:
        def forward_hook(_module: torch.nn.Module, _inputs: Any, output: Any) -> None:
            receive(layer, output[0] if isinstance(output, tuple) else output)
            if leaves_early and layer == highest:
                raise _AllRecorded

        return forward_hook

    handles = [blocks[layer].register_forward_hook(hook(layer)) for layer in layers]
    try:
        yield
    except _AllRecorded:
        pass
    finally:
        for handle in handles:
            handle.remove()


@torch.inference_mode()
def run_backbone(
    model: PreTrainedModel,
    tokens: Int[Tensor, "batch position"],
    mask: Bool[Tensor, "batch position"],
) -> None:
    """One forward pass of the blocks alone: no vocabulary logits, no cache.

    Positions are counted over real tokens; the mask is left out where no position is padding,
    since attention is then causal alone and has a faster kernel.
    """
    device = model.device
    inputs: dict[str, Any] = {"input_ids": tokens.to(device), "use_cache": False}
    if not mask.all():
        inputs["attention_mask"] = mask.to(device)
        if _takes_positions(model.base_model):
            inputs["position_ids"] = positions(mask).to(device)
    model.base_model(**inputs)


def _takes_positions(backbone: torch.nn.Module) -> bool:
    return "position_ids" in inspect.signature(backbone.forward).parameters
