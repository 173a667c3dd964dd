"""Find the modules at which a block's sites are read.

`attn_out` and `mlp_out` are found by what they do rather than by class name: a probe of a few
tokens is run, and the two modules of a block are taken whose outputs sum, with the block's input,
to its output. That holds for attention and MLP in sequence and in parallel, and finds the norm
behind them where a family norms what it adds (Gemma 2 and 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from axes.ingest.forward.recording import Point, record, run_backbone
from axes.ingest.jobs import non_finite
from axes.warehouse.errors import ModelError
from axes.warehouse.sites import RESID_POST, SITES

if TYPE_CHECKING:
    from axes.ingest.models.load import LoadedModel

_PROBE_LENGTH = 6
# A sum that is the block's output up to rounding in that dtype; two other modules miss by far.
_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 4e-3}


def find_points(
    loaded: LoadedModel, layers: Sequence[int], sites: Sequence[str]
) -> dict[tuple[int, str], Point]:
    """The point of each layer and site.

    Raises `ModelError` for an unknown site, and where a block does not add one attention and one
    MLP output to the residual stream (a state-space block; a family that scales what it adds);
    `NonFiniteError` where that cannot be told because they overflow.
    """
    if unknown := set(sites) - set(SITES):
        raise ModelError(f"unknown site {min(unknown)}: it is one of {', '.join(SITES)}")
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
    return {place: point for place, point in points.items() if place[1] in sites}


def _addends(loaded: LoadedModel, layer: int) -> tuple[torch.nn.Module, torch.nn.Module]:
    """The modules of a block whose outputs are added to the stream: of attention, and of the MLP.

    The outermost are taken; that one lies in the attention is read off its path in the block.
    """
    block = loaded.blocks[layer]
    inside = {path: module for path, module in block.named_modules() if path}
    before, after, outputs = _probe(loaded, layer, inside)
    if not after.isfinite().all():
        raise non_finite(loaded, f"at layer {layer}")
    difference, scale = after - before, after.abs().max()
    tolerance = _TOLERANCE.get(loaded.model.dtype, 2e-2) * float(scale)
    for one, other in combinations(outputs, 2):
        if (outputs[one] + outputs[other] - difference).abs().max() <= tolerance:
            pair = sorted((one, other), key=lambda path: not _is_attention(path))
            if _is_attention(pair[0]) and not _is_attention(pair[1]):
                return inside[pair[0]], inside[pair[1]]
    raise ModelError(
        f"{loaded.spec.name} has no attn_out and mlp_out at layer {layer}: no two modules of "
        f"{type(block).__name__} add up to what it adds to the residual stream"
    )


def _is_attention(path: str) -> bool:
    return "att" in path.lower()


def _probe(
    loaded: LoadedModel, layer: int, inside: dict[str, torch.nn.Module]
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """The block's input and output on a few tokens, and the outputs in it that have their shape."""
    block = loaded.blocks[layer]
    around = [Point(layer, "resid_pre", block, reads_input=True), Point(layer, RESID_POST, block)]
    parts = {Point(layer, path, module): path for path, module in inside.items()}
    got: dict[Point, Any] = {}

    def receive(point: Point, hidden: Any) -> None:
        got[point] = hidden.float().cpu().clone() if isinstance(hidden, Tensor) else None

    tokens = torch.arange(_PROBE_LENGTH)[None] + 3
    with record([*around, *parts], receive, leaves_early=True):
        run_backbone(loaded.model, tokens, torch.ones_like(tokens, dtype=torch.bool))
    before, after = (got[point] for point in around)
    outputs = {}
    for point, path in parts.items():
        hidden = got.get(point)
        # Some families flatten batch and position for the MLP.
        if hidden is not None and hidden.numel() == after.numel():
            outputs[path] = hidden.reshape(after.shape)
    return before, after, outputs
