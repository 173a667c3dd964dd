"""Export axes: vectors with their cards, numbered as the readers of a format count layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from axes.analysis.exchange.card import axis_card
from axes.analysis.exchange.formats import FORMATS, Format
from axes.analysis.exchange.formats.contents import Card, Contents, number_of
from axes.warehouse.axes import Axis, find_axes, read_axes
from axes.warehouse.errors import AxisError
from axes.warehouse.handle import Warehouse
from axes.warehouse.storage.files import replacing

_SUBSPACE_FORMATS = ("safetensors", "npz")


@dataclass(frozen=True)
class ExportResult:
    """Where the axes are, how the format's reader takes them in, and what was left out and why."""

    path: Path
    usage: str
    remarks: tuple[str, ...] = ()


def export_axes(
    warehouse: Warehouse,
    names: Sequence[str],
    to: str,
    output: Path,
    *,
    all_layers: bool = False,
    is_raw: bool = False,
) -> ExportResult:
    """Write axes (ids, starts of them, or names) of one model and site to one file or folder.

    A subspace is a file by itself, a matrix with a row for each basis vector. With `all_layers` the
    directions that were fitted as the one named was, at every layer; those that the format has no
    number for are left out. `is_raw` writes vectors of their raw norm.
    Raises `AxisError` where a format cannot hold what is asked for.
    """
    kind = FORMATS[to]
    axes = [axis for name in names for axis in find_axes(warehouse, name)]
    is_subspace = len(axes) > len(names)
    if is_subspace:
        if len(names) > 1 or all_layers or to not in _SUBSPACE_FORMATS:
            raise AxisError(
                f"a subspace is exported alone, without --all-layers, --to "
                f"{' or '.join(_SUBSPACE_FORMATS)}, and its axes, {axes[0].name}, as any other"
            )
        numbered = dict(enumerate(axes))
    else:
        if all_layers:
            axes = [axis for named in axes for axis in _at_every_layer(warehouse, named)]
        axes = sorted(axes, key=lambda axis: axis.space.layer)
        _require_one_file(axes, kind)
        numbered = {
            number_of(axis.space.layer, kind.convention, axis.space.site): axis for axis in axes
        }
    held = {number: axis for number, axis in numbered.items() if number >= kind.min_number}
    refusals = tuple(
        _refusal(axis, number, kind) for number, axis in numbered.items() if number not in held
    )
    if refusals and not (all_layers and held):
        raise AxisError(refusals[0])
    output.parent.mkdir(parents=True, exist_ok=True)
    with replacing(output) as temporary:
        contents = _contents(warehouse, held, kind, is_raw=is_raw)
        kind.file.write(replace(contents, is_subspace=is_subspace), temporary)
    return ExportResult(output, kind.usage.replace("PATH", str(output)), refusals)


def _at_every_layer(warehouse: Warehouse, axis: Axis) -> list[Axis]:
    """The axes whose name, space and method are those of one but for the layer."""
    axis_ids = warehouse.column(
        """
        select axis_id
        from axes
        where
            kind = $kind and method = $method and space_model_id = $model_id
            and site = $site and pooling = $pooling and template = $template
            and replace(name, '/' || layer || '/', '/*/')
            = replace($name, '/' || $layer || '/', '/*/')
        order by layer, axis_id
        """,
        {
            **axis.space.columns,
            "kind": axis.kind,
            "method": axis.method,
            "name": axis.name,
            "layer": axis.space.layer,
        },
    )
    return read_axes(warehouse, axis_ids)


def _require_one_file(axes: Sequence[Axis], kind: Format) -> None:
    """One model and site, one axis a layer, as many as the format holds."""
    places = {(axis.space.model_id, axis.space.site) for axis in axes}
    if len(places) > 1:
        found = "; ".join(f"{axis.name} ({axis.space.model}, {axis.space.site})" for axis in axes)
        raise AxisError(f"one file holds axes of one model and site, found {found}")
    layers = [axis.space.layer for axis in axes]
    twice = next((layer for layer in layers if layers.count(layer) > 1), None)
    if twice is not None:
        ids = ", ".join(axis.axis_id for axis in axes if axis.space.layer == twice)
        raise AxisError(f"one file holds one axis per layer, found several at layer {twice}: {ids}")
    if len(axes) > 1 and not kind.holds_several:
        raise AxisError(f"{kind.name} holds one axis, found {len(axes)}: export them one by one")


def _refusal(axis: Axis, number: int, kind: Format) -> str:
    where = f"axis {axis.name} at layer {axis.space.layer} ({axis.space.site})"
    if number < 0:
        return f"{where} is of the embedding, which is no block's output: {kind.name} has no number"
    return (
        f"{where} would be direction.{number}, and llama.cpp refuses a control vector with "
        "direction.0: use another format, repeng among them"
    )


def _contents(
    warehouse: Warehouse, held: dict[int, Axis], kind: Format, *, is_raw: bool
) -> Contents:
    cards: list[Card] = []
    vectors: dict[int | None, np.ndarray] = {}
    for number, axis in held.items():
        card = axis_card(warehouse, axis)
        file = {"format": kind.name, "number": number, "convention": kind.convention}
        cards.append({**card, "is_unit_norm": not is_raw, "file": file})
        scale = axis.raw_norm if is_raw else 1.0
        vectors[number] = axis.vector.astype(np.float32) * np.float32(scale)
    space = cards[0]["space"] or {}
    return Contents(
        vectors=vectors,
        convention=kind.convention,
        model_type=space.get("architecture"),
        model_name=cards[0]["space_model"],
        method=cards[0]["method"],
        layer_count=space.get("layer_count"),
        cards=cards,
    )
