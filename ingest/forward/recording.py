"""Record what flows through the blocks of a model, in one forward pass.

A point is a block and a site. `resid_post` is the residual stream after the block, before any final
norm: HF's `hidden_states[layer + 1]`, except after the last block, whose entry there is normed.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from axes.ingest.forward.batching import positions, to_device
from axes.warehouse.sites import RESID_POST

if TYPE_CHECKING:
    from transformers import Cache, PreTrainedModel


@dataclass(frozen=True)
class Point:
    """A place to read: what `module` puts out, or with `reads_input` what is put into it."""

    layer: int
    site: str
    module: torch.nn.Module
    reads_input: bool = False


Receive = Callable[[Point, Tensor], None]


class _AllRecorded(Exception):
    """Leaves a forward pass of which nobody asked for the rest."""


def block_points(blocks: Sequence[torch.nn.Module], layers: Sequence[int]) -> list[Point]:
    """The outputs of some blocks."""
    return [Point(layer, RESID_POST, blocks[layer]) for layer in layers]


@contextmanager
def record(
    points: Sequence[Point], receive: Receive, *, leaves_early: bool = False
) -> Iterator[None]:
    """While active, call `receive(point, hidden)` with what passes there, `[batch, position, d]`.

    The tensor is the model's own: reduce or copy it, do not keep or change it. With `leaves_early`
    the body of the `with` ends when every point has been seen: nothing above is run.
    """
    unseen = set(points)

    def see(point: Point, hidden: Any) -> None:
        receive(point, hidden[0] if isinstance(hidden, tuple) else hidden)
        unseen.discard(point)
        if leaves_early and not unseen:
            raise _AllRecorded

    def hook(point: Point) -> torch.utils.hooks.RemovableHandle:
        if point.reads_input:
            return point.module.register_forward_pre_hook(
                lambda _module, args, kwargs: see(point, args[0] if args else _hidden_of(kwargs)),
                with_kwargs=True,
            )
        return point.module.register_forward_hook(lambda _module, _args, output: see(point, output))

    handles = [hook(point) for point in points]
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
    *,
    cache: Cache | None = None,
) -> None:
    """One forward pass of the blocks alone: no vocabulary logits.

    `cache` holds tokens that stand before these in every row, and takes these up too. Positions are
    counted over real tokens; the mask is left out where no position is padding, since attention is
    then causal alone and has a faster kernel.
    """
    device = model.device
    before = 0 if cache is None else cache.get_seq_length()
    inputs: dict[str, Any] = {"use_cache": cache is not None}
    if cache is not None:
        inputs[cache_argument(model.base_model)] = cache
    if not mask.all():
        seen = mask.new_ones(len(mask), before)
        inputs["attention_mask"] = to_device(torch.cat([seen, mask], dim=1), device)
        if takes_argument(model.base_model, "position_ids"):
            inputs["position_ids"] = to_device(before + positions(mask), device)
    model.base_model(input_ids=to_device(tokens, device), **inputs)


def takes_argument(module: torch.nn.Module, name: str) -> bool:
    """Whether the module's forward pass has an argument of this name."""
    return name in inspect.signature(module.forward).parameters


def cache_argument(module: torch.nn.Module) -> str:
    """The name under which the module's forward pass takes a cache; empty where it takes none.

    `cache` since transformers 5.24; before that `past_key_values`, or `cache_params` for a state.
    """
    names = ("cache", "past_key_values", "cache_params")
    return next((name for name in names if takes_argument(module, name)), "")


def _hidden_of(kwargs: dict[str, Any]) -> Tensor:
    """A block's input where it is passed by name."""
    if "hidden_states" in kwargs:
        return kwargs["hidden_states"]
    return next(value for value in kwargs.values() if isinstance(value, Tensor))
