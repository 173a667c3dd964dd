"""Record the activations of a model's blocks in one forward pass.

A point is a block and a site. `resid_post` is the residual stream after the block, before any final
norm: HF's `hidden_states[layer + 1]`, except after the last block, whose entry is normed.

`attn_out` and `mlp_out` are identified by what they do rather than by class name: a few tokens are
run, and the two modules of a block are taken whose outputs sum, with the block's input, to its
output. That holds for attention and MLP in sequence and in parallel, and selects the norm behind
them where a family norms what it adds (Gemma 2 and 3).

`router` is the module that transformers itself takes a family's `router_logits` from.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from axes.ingest.forward.batching import positions, to_device
from axes.ingest.models.load import non_finite
from axes.warehouse.errors import ModelError
from axes.warehouse.names import RESID_POST, ROUTER, SITES

if TYPE_CHECKING:
    from transformers import Cache, PreTrainedModel

    from axes.ingest.models.load import LoadedModel


@dataclass(frozen=True)
class Point:
    """A place to read: what `module` puts out, or with `reads_input` what is put into it.

    Of a tuple it is the entry at `index`.
    """

    layer: int
    site: str
    module: torch.nn.Module
    reads_input: bool = False
    index: int = 0


Receive = Callable[[Point, Tensor], None]

# What a backbone calls its cache: `cache` since transformers 5.24; before that `past_key_values`,
# or `cache_params` for a state.
CACHE_ARGUMENTS = ("cache", "past_key_values", "cache_params")


class _AllRecorded(Exception):
    """Leaves a forward pass when every point has been recorded."""


def block_points(blocks: Sequence[torch.nn.Module], layers: Sequence[int]) -> list[Point]:
    """The outputs of some blocks."""
    return [Point(layer, RESID_POST, blocks[layer]) for layer in layers]


@contextmanager
def record(
    points: Sequence[Point], receive: Receive, *, leaves_early: bool = False
) -> Iterator[None]:
    """While active, call `receive(point, hidden)` with its activations, `[batch, position, d]`.

    The model owns the tensor: reduce or copy it, do not keep or change it. With `leaves_early`
    the body of the `with` ends when every point has been seen: nothing above is run.
    """
    unseen = set(points)

    def see(point: Point, hidden: Any) -> None:
        receive(point, hidden[point.index] if isinstance(hidden, tuple) else hidden)
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
    cached: dict[str, Any] = {"use_cache": cache is not None}
    if cache is not None:
        cached[cache_argument(model.base_model)] = cache
    before = 0 if cache is None else cache.get_seq_length()
    model.base_model(**_inputs(model.base_model, model.device, tokens, mask, before), **cached)


@torch.inference_mode()
def last_logits(
    model: PreTrainedModel,
    tokens: Int[Tensor, "batch position"],
    mask: Bool[Tensor, "batch position"],
    count: int,
) -> Float[Tensor, "batch count vocabulary"]:
    """Logits of one pass at the last `count` positions, at all where a model cannot leave any out.

    Inputs as in `run_backbone`.
    """
    options = {"logits_to_keep": count} if takes_argument(model, "logits_to_keep") else {}
    inputs = _inputs(model, model.device, tokens, mask, 0)
    return cast(Any, model)(**inputs, **options, use_cache=False).logits


def _inputs(
    module: torch.nn.Module, device: torch.device, tokens: Tensor, mask: Tensor, before: int
) -> dict[str, Tensor]:
    inputs = {"input_ids": to_device(tokens, device)}
    if not mask.all():
        seen = mask.new_ones(len(mask), before)
        inputs["attention_mask"] = to_device(torch.cat([seen, mask], dim=1), device)
        if takes_argument(module, "position_ids"):
            inputs["position_ids"] = to_device(before + positions(mask), device)
    return inputs


def recorded(
    model: PreTrainedModel,
    points: Sequence[Point],
    tokens: Int[Tensor, "batch position"],
    mask: Bool[Tensor, "batch position"],
    *,
    cache: Cache | None = None,
) -> dict[Point, Tensor]:
    """Copies of what one pass gives at each point; a point that gives no tensor is left out."""
    found: dict[Point, Tensor] = {}

    def receive(point: Point, hidden: Any) -> None:
        if isinstance(hidden, Tensor):
            found[point] = by_position(hidden, tokens).clone()

    with record(points, receive, leaves_early=True):
        run_backbone(model, tokens, mask, cache=cache)
    return found


def by_position(hidden: Tensor, tokens: Int[Tensor, "batch position"]) -> Tensor:
    """`[batch, position, d]` of activations that a module flattens to `[batch * position, d]`."""
    is_flat = hidden.ndim == 2 and len(hidden) == tokens.numel()
    return hidden.reshape(*tokens.shape, -1) if is_flat else hidden


def takes_argument(module: torch.nn.Module, name: str) -> bool:
    """Whether the module's forward pass has an argument of this name."""
    return name in inspect.signature(module.forward).parameters


def cache_argument(module: torch.nn.Module) -> str:
    """The name under which the module's forward pass takes a cache; empty where it takes none."""
    return next((name for name in CACHE_ARGUMENTS if takes_argument(module, name)), "")


def keeps_keys(cache: Any) -> bool:
    """Whether a cache holds keys of its positions; a state holds all that went before as one."""
    return any(hasattr(layer, "keys") for layer in getattr(cache, "layers", ()))


def _hidden_of(kwargs: dict[str, Any]) -> Tensor:
    """A block's input where it is passed by name."""
    if "hidden_states" in kwargs:
        return kwargs["hidden_states"]
    return next(value for value in kwargs.values() if isinstance(value, Tensor))


_PROBED_TOKENS = 6
# A sum that is the block's output up to rounding in that dtype; two other modules miss by far.
_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 4e-3}


def find_points(
    loaded: LoadedModel, layers: Sequence[int], sites: Sequence[str]
) -> dict[tuple[int, str], Point]:
    """The point of each layer and site.

    Raises `ModelError` for an unknown site, and where a block does not add one attention and one
    MLP output to the residual stream (a state-space block; a family that scales what it adds), or
    has no router; `NonFiniteError` where overflowing activations hide that.
    """
    known = (*SITES, ROUTER)
    if unknown := set(sites) - set(known):
        raise ModelError(f"unknown site {min(unknown)}: it is one of {', '.join(known)}")
    points = {}
    for layer in layers:
        block = loaded.blocks[layer]
        points[layer, RESID_POST] = Point(layer, RESID_POST, block)
        points[layer, "resid_pre"] = Point(layer, "resid_pre", block, reads_input=True)
    if not {"attn_out", "mlp_out"}.isdisjoint(sites):
        for layer in layers:
            attention, mlp = _addends(loaded, layer)
            points[layer, "attn_out"] = Point(layer, "attn_out", attention)
            points[layer, "mlp_out"] = Point(layer, "mlp_out", mlp)
    if ROUTER in sites:
        points |= {(layer, ROUTER): point for layer, point in _routers(loaded, layers).items()}
    return {place: point for place, point in points.items() if place[1] in sites}


def _routers(loaded: LoadedModel, layers: Sequence[int]) -> dict[int, Point]:
    """The gate of each of `layers`; raises `ModelError` where a block does not have one."""
    index_of: dict[type, int] = {}
    for model in loaded.model.modules():
        named = (getattr(model, "_can_record_outputs", None) or {}).get("router_logits", ())
        for recorder in named if isinstance(named, list | tuple) else [named]:
            index_of[recorder.target_class] = recorder.index
    gates = {
        layer: [
            Point(layer, ROUTER, module, index=index_of[type(module)])
            for module in block.modules()
            if type(module) in index_of
        ]
        for layer, block in enumerate(loaded.blocks)
    }
    routed = [str(layer) for layer, points in gates.items() if len(points) == 1]
    for layer in layers:
        if str(layer) not in routed:
            remedy = f": choose of --layers {','.join(routed)}" if routed else ""
            raise ModelError(f"{loaded.spec.name} has no router at layer {layer}{remedy}")
    return {layer: gates[layer][0] for layer in layers}


def _addends(loaded: LoadedModel, layer: int) -> tuple[torch.nn.Module, torch.nn.Module]:
    """The modules of a block whose outputs are added to the stream: of attention, and of the MLP.

    The outermost are taken; that one lies in the attention is read off its path in the block.
    """
    block = loaded.blocks[layer]
    inside = {path: module for path, module in block.named_modules() if path}
    before, after, outputs = _run_block(loaded, layer, inside)
    if not after.isfinite().all():
        raise non_finite(loaded, f"at layer {layer}")
    difference, scale = after - before, after.abs().max()
    tolerance = _TOLERANCE.get(loaded.model.dtype, 2e-2) * float(scale)
    for paths in combinations(outputs, 2):
        added = outputs[paths[0]] + outputs[paths[1]]
        if (added - difference).abs().max() <= tolerance:
            pair = sorted(paths, key=lambda path: not _is_attention(path))
            if _is_attention(pair[0]) and not _is_attention(pair[1]):
                return inside[pair[0]], inside[pair[1]]
    raise ModelError(
        f"{loaded.spec.name} has no attn_out and mlp_out at layer {layer}: no two modules of "
        f"{type(block).__name__} add up to what it adds to the residual stream"
    )


def _is_attention(path: str) -> bool:
    return "att" in path.lower()


def _run_block(
    loaded: LoadedModel, layer: int, inside: dict[str, torch.nn.Module]
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """The block's input and output on a few tokens, and the outputs in it that have their shape."""
    block = loaded.blocks[layer]
    around = [Point(layer, "resid_pre", block, reads_input=True), Point(layer, RESID_POST, block)]
    parts = {Point(layer, path, module): path for path, module in inside.items()}
    tokens = torch.arange(_PROBED_TOKENS)[None] + 3
    mask = torch.ones_like(tokens, dtype=torch.bool)
    found = recorded(loaded.model, [*around, *parts], tokens, mask)
    found = {point: hidden.float().cpu() for point, hidden in found.items()}
    before, after = (found[point] for point in around)
    # Some families flatten batch and position for the MLP.
    outputs = {
        path: found[point].reshape(after.shape)
        for point, path in parts.items()
        if point in found and found[point].numel() == after.numel()
    }
    return before, after, outputs
