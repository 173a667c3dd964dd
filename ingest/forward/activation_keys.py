"""Which vectors a job is asked for, and which of them are stored already."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import NamedTuple

from axes.ingest.requests import ActivationRequest
from axes.warehouse.handle import Warehouse
from axes.warehouse.tables.index import stored_keys


class Item(NamedTuple):
    """What is stored of a prompt: one pooled vector, or with an empty `pooling` every token's."""

    layer: int
    site: str
    pooling: str


Items = frozenset[Item]


def requested_items(request: ActivationRequest, poolings: Iterable[str], layer_count: int) -> Items:
    """Everything requested of one prompt, for a model of `layer_count` blocks."""
    layers = range(layer_count) if request.layers is None else request.layers
    pooled = itertools.product(layers, request.sites, poolings)
    every_token = itertools.product(request.token_layers, request.sites, ("",))
    return frozenset(itertools.starmap(Item, itertools.chain(pooled, every_token)))


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
