"""What is asked of a job, and what of it is stored already."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import NamedTuple

from axes.ingest.forward.pooling import POOLINGS, Pooling
from axes.ingest.forward.templates import Template
from axes.warehouse.connection import connect_tables, query
from axes.warehouse.names import RESID_POST


class Item(NamedTuple):
    """What is stored of a prompt: one pooled vector, or with an empty `pooling` every token's."""

    layer: int
    site: str
    pooling: str


Items = frozenset[Item]


@dataclass(frozen=True)
class Selection:
    """Which activations of a prompt: layers None for all, every site and pooling of each.

    Of `token_layers` every token's vector is kept beside the pooled ones.
    """

    layers: tuple[int, ...] | None = None
    sites: tuple[str, ...] = (RESID_POST,)
    poolings: tuple[Pooling, ...] = (POOLINGS["last5_mean"],)
    token_layers: tuple[int, ...] = ()
    template: Template = field(default_factory=Template)

    def items(self, layer_count: int) -> Items:
        """Everything asked of one prompt, for a model of `layer_count` blocks."""
        layers = range(layer_count) if self.layers is None else self.layers
        pooled = {
            Item(layer, site, pooling.name)
            for layer in layers
            for site in self.sites
            for pooling in self.poolings
        }
        return frozenset(
            pooled | {Item(layer, site, "") for layer in self.token_layers for site in self.sites}
        )

    def described(self) -> dict[str, object]:
        """As parameters of a run row."""
        return {
            "layers": self.layers,
            "sites": self.sites,
            "poolings": [pooling.name for pooling in self.poolings],
            "token_layers": self.token_layers,
            "template": self.template.name,
            "system": self.template.system,
        }


def stored_items(root: Path, model: str, model_id: str, template: str) -> dict[str, Items]:
    """Prompt id -> what is stored of it for this model version and template."""
    found = query(
        connect_tables(root, "activations", "prompt_tokens"),
        """
        with items as (
            select distinct prompt_id, concat_ws(' ', layer, site, pooling) as item
            from activations
            where model = $model and model_id = $model_id and template = $template
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
    ids, texts = (found[name].to_pylist() for name in ("prompt_id", "items"))
    return {prompt_id: _parse_items(text) for prompt_id, text in zip(ids, texts, strict=True)}


def missing_items(
    wanted: Items, prompt_ids: Iterable[str], there: dict[str, Items]
) -> dict[str, Items]:
    """Prompt id -> the wanted items that are not there; complete prompts are left out."""
    # One set for all prompts that have the same: with 30 layers a set of its own is 2 kB for each.
    lacking: dict[Items, Items] = {}
    missing = {}
    for name in prompt_ids:
        have = there.get(name, frozenset())
        if have not in lacking:
            lacking[have] = wanted - have
        if lacking[have]:
            missing[name] = lacking[have]
    return missing


# Nearly all prompts of a model have the same items.
@cache
def _parse_items(text: str) -> Items:
    parts = (item.split(" ") for item in text.split(","))
    return frozenset(Item(int(layer), site, pooling) for layer, site, pooling in parts)
