"""Which vectors or projections a job is asked for, and which of them are stored already."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from axes.ingest.requests import ActivationRequest
from axes.warehouse.axes import AXIS_TABLES, Axis, AxisReadout, find_axes, read_axis_readout
from axes.warehouse.errors import AxisError
from axes.warehouse.handle import Warehouse
from axes.warehouse.tables.index import stored_keys


class Item(NamedTuple):
    """What is stored of a prompt: one pooled vector, or with an empty `pooling` every token's."""

    layer: int
    site: str
    pooling: str

    @property
    def table(self) -> str:
        return "activations" if self.pooling else "prompt_tokens"


class AxisItem(NamedTuple):
    """What is stored of a prompt instead of a pooled vector: its projection on an axis."""

    layer: int
    site: str
    pooling: str
    axis_id: str

    @property
    def table(self) -> str:
        return "projections"


Items = frozenset[Item | AxisItem]


def recorded_items(items: Iterable[Item | AxisItem]) -> list[Item]:
    """The vectors that items are, or are projections of, each once."""
    return list(dict.fromkeys(Item(*item[:3]) for item in items))


def requested_items(request: ActivationRequest, poolings: Iterable[str], layer_count: int) -> Items:
    """Everything requested of one prompt, for a model of `layer_count` blocks."""
    layers = range(layer_count) if request.layers is None else request.layers
    pooled = itertools.product(layers, request.sites, poolings)
    every_token = itertools.product(request.token_layers, request.sites, ("",))
    return frozenset(itertools.starmap(Item, itertools.chain(pooled, every_token)))


def requested_axes(root: Path, request: ActivationRequest, poolings: Iterable[str]) -> list[Axis]:
    """The axes to project on; raises `AxisError` for one that the other options contradict."""
    if request.layers is not None or request.token_layers:
        raise AxisError(
            "--axis stores projections from the layer of each axis and no vectors: leave out "
            "--layers and --keep-tokens"
        )
    asked = {"template": [request.rendering.name], "pooling": poolings, "site": request.sites}
    warehouse = Warehouse.open_tables(root, *AXIS_TABLES)
    axes = [axis for name in request.axes for axis in find_axes(warehouse, name)]
    for axis, (option, values) in itertools.product(axes, asked.items()):
        if (value := getattr(axis.space, option)) not in values:
            raise AxisError(
                f"the axis {axis.name} is of {option} {value}, this job of {', '.join(values)}: "
                f"change --{option}"
            )
    return axes


def axis_readouts(
    root: Path, axes: Sequence[Axis], model: str, model_id: str
) -> dict[AxisItem, AxisReadout]:
    """How a model reaches the axes; raises `AxisError` for one that it does not reach."""
    warehouse = Warehouse.open_tables(root, *AXIS_TABLES)
    readouts = {}
    for axis in axes:
        readout = read_axis_readout(warehouse, axis, model, model_id)
        item = AxisItem(readout.layer, axis.space.site, axis.space.pooling, axis.axis_id)
        readouts[item] = readout
    return readouts


def stored_projections(
    root: Path, model: str, model_id: str, requested: Iterable[AxisItem]
) -> dict[str, Items]:
    """Prompt id -> which of the requested projections of a model version are stored."""
    by_axis = {item.axis_id: item for item in requested}
    table = Warehouse.open_tables(root, "projections").query(
        """
        select prompt_id, string_agg(axis_id, ',' order by axis_id) as axis_ids
        from projections
        where model = ? and model_id = ? and list_contains(?, axis_id)
        group by prompt_id
        """,
        [model, model_id, list(by_axis)],
    )
    items = cache(lambda text: frozenset(by_axis[axis_id] for axis_id in text.split(",")))
    ids, texts = (table[name].to_pylist() for name in ("prompt_id", "axis_ids"))
    return {prompt_id: items(text) for prompt_id, text in zip(ids, texts, strict=True)}


def stored_items(root: Path, model: str, model_id: str, template: str) -> dict[str, Items]:
    """Prompt id -> what is stored of it for this model version and template."""
    warehouse = Warehouse.open_tables(root, "prompt_tokens")
    warehouse.connection.register("stored_keys", stored_keys(root, model))
    table = warehouse.query(
        """
        with items as (
            select distinct prompt_id, concat_ws(' ', unnest(layers), site, pooling) as item
            from stored_keys
            where model_id = $model_id and template = $template
            union all
            select distinct prompt_id, concat_ws(' ', layer, site, '') as item
            from prompt_tokens
            where model = $model and model_id = $model_id and template = $template
        )
        select prompt_id, string_agg(item, ',' order by item) as items
        from items
        group by prompt_id
        """,
        {"model": model, "model_id": model_id, "template": template},
    )
    ids, texts = (table[name].to_pylist() for name in ("prompt_id", "items"))
    return {prompt_id: _parse_items(text) for prompt_id, text in zip(ids, texts, strict=True)}


def missing_items(
    requested: Items, prompt_ids: Iterable[str], stored: dict[str, Items]
) -> dict[str, Items]:
    """Prompt id -> the requested items that are not stored; complete prompts are left out."""
    # One set for all prompts that have the same: with 30 layers a set takes 2 kB.
    remaining: dict[Items, Items] = {}
    missing = {}
    for name in prompt_ids:
        present = stored.get(name, frozenset())
        if present not in remaining:
            remaining[present] = requested - present
        if remaining[present]:
            missing[name] = remaining[present]
    return missing


# Nearly all prompts of a model have the same items.
@cache
def _parse_items(text: str) -> Items:
    parts = (item.split(" ") for item in text.split(","))
    return frozenset(Item(int(layer), site, pooling) for layer, site, pooling in parts)
