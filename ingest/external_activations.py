"""The job: vectors that others computed, from a file into the warehouse, with prompts and labels.

The rows are under the invariants of those that our own jobs write: one width, finite, each key
once, the layer a zero-based block whose output the vector is. What is there already is compared and
not written again.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from axes.ingest.external_files import PLACE_COLUMNS, GivenFile, Part, open_given
from axes.ingest.forward.activation_keys import Item, Items, stored_items
from axes.ingest.given_models import GivenModel, describe
from axes.ingest.given_prompts import given_prompts, write_given_prompts
from axes.warehouse.connection import Connection, connect
from axes.warehouse.errors import ImportFileError, LayerError, ModelError, NonFiniteError
from axes.warehouse.external_models import UNKNOWN
from axes.warehouse.layers import layer_batches
from axes.warehouse.layout import init_root
from axes.warehouse.locks import locked
from axes.warehouse.progress import track
from axes.warehouse.runs import Run, record_run
from axes.warehouse.sites import RESID_POST
from axes.warehouse.tables.schemas import TABLES
from axes.warehouse.writer import content_key, data_file, rows_table, vector_array, write_rows

COMMAND = "activations import"
CONVENTIONS = ("blocks", "hidden_states")
_FLUSH_BYTES = 48 << 20


@dataclass(frozen=True)
class ImportedActivations:
    """What an import did: `rows` were written, `known_rows` were there with the same vectors.

    `layers` are blocks; `left_out` counts the vectors of the entry after the final norm.
    """

    model: str
    model_id: str
    run_id: str
    prompt_set: str | None
    prompt_count: int
    layers: list[int]
    rows: int
    known_rows: int
    left_out: int


def import_activations(
    root: Path,
    file: Path,
    *,
    index: Path | None = None,
    model: Mapping[str, Any] | None = None,
    prompt_set: str | None = None,
    layers_are: str | None = None,
    site: str | None = None,
    pooling: str | None = None,
    template: str | None = None,
    positive: Sequence[str] = (),
    skip_normed: bool = False,
) -> ImportedActivations:
    """Write the vectors of a file that `open_given` reads, and their prompts and labels.

    `model` has keys of `GivenModel`. What is None is as the file's own card says, if it has one.
    `layers_are` is `blocks` (N is the output of block N) or `hidden_states` (N is the entry N of
    transformers: the output of block N - 1, with entry 0 the input of block 0). The last entry is
    behind the final norm: it raises `LayerError`, or is left out with `skip_normed`.

    Raises `ImportFileError`, `ModelError`, `LayerError`, `PromptError`, `LabelError` or
    `NonFiniteError`; files committed before an error stay, and are passed over the next time.
    """
    init_root(root)
    given = open_given(file, index)
    said = {
        "layers_are": layers_are,
        "site": site,
        "pooling": pooling,
        "template": template,
        "prompt_set": prompt_set,
    }
    stated = {name: value or given.card.get(name) for name, value in said.items()}
    stated["template"] = template = _template(stated["template"] or "raw")
    described = describe({**given.card.get("model", {}), **(model or {})}, width=given.d_model)
    items = _as_blocks(given.items, stated, described, skip_normed)
    prompts = given_prompts(root, given.index.drop(PLACE_COLUMNS, strict=False))
    _require_distinct(file, given, prompts["prompt_id"])
    parameters = {
        "file": str(file),
        "index": None if index is None else str(index),
        "model": dict(model or {}),
        "model_id": described.model_id,
        **stated,
        "positive": list(positive),
        "skip_normed": skip_normed,
    }
    with (
        locked(root, described.model_id, notice=f"{described.name} is being imported: waiting"),
        record_run(root, COMMAND, parameters) as run,
    ):
        write_given_prompts(root, run, stated["prompt_set"], prompts, positive)
        _register(root, run, described)
        run.rows = 0
        writer = _Writer(root, run, file, described, template, prompts)
        with track(f"import {described.name}", _row_count(given), "rows") as advance:
            for part in given.parts():
                if part.item in items:
                    writer.add(items[part.item], part)
                advance(len(part.places))
        writer.flush()
    return ImportedActivations(
        model=described.name,
        model_id=described.model_id,
        run_id=run.run_id,
        prompt_set=stated["prompt_set"],
        prompt_count=prompts["prompt_id"].n_unique(),
        layers=sorted({item.layer for item in items.values()}),
        rows=run.rows,
        known_rows=writer.known_rows,
        left_out=_row_count(given) - run.rows - writer.known_rows,
    )


def _template(name: str) -> str:
    if not re.fullmatch(r"raw|chat(\+system:\w+)?", name):
        raise ModelError(f"unknown template {name}: it is raw, chat or chat+system:HASH")
    return name


def _as_blocks(
    items: Sequence[Item], stated: Mapping[str, Any], model: GivenModel, skip_normed: bool
) -> dict[Item, Item]:
    """The file's items as ours: blocks from 0 on, with site and pooling."""
    if stated["layers_are"] not in CONVENTIONS:
        raise LayerError(
            "which layer is number N? --layers-are blocks: the output of block N; "
            "--layers-are hidden_states: transformers' hidden_states[N], so the output of N - 1"
        )
    found: dict[Item, Item] = {}
    for item in items:
        site, pooling = item.site or stated["site"] or RESID_POST, item.pooling or stated["pooling"]
        if pooling is None:
            raise ImportFileError(
                "how did positions become one vector? --pooling last, mean, last5_mean, ..., "
                "or a column pooling"
            )
        layer = item.layer
        if stated["layers_are"] == "hidden_states":
            if site != RESID_POST:
                raise LayerError(f"hidden_states are {RESID_POST}, and {site} is stated")
            if layer == model.layer_count:
                if skip_normed:
                    continue
                raise LayerError(
                    f"hidden_states[{layer}], the last of {model.layer_count} blocks, is behind "
                    "the final norm and not the block's output: --skip-normed leaves it out; if "
                    "you recorded blocks yourself, number them and say --layers-are blocks"
                )
            # The first entry is what goes into block 0.
            layer, site = (layer - 1, site) if layer else (0, "resid_pre")
        if not 0 <= layer < model.layer_count:
            raise LayerError(
                f"layer {item.layer} of {model.name} does not exist: it has {model.layer_count} "
                f"blocks, and numbers are {stated['layers_are']}"
            )
        found[item] = Item(layer, site, pooling)
    if len(set(found.values())) < len(found):
        raise LayerError("two layers of the file are the same block: state one site and pooling")
    return found


def _require_distinct(file: Path, given: GivenFile, prompt_ids: pl.Series) -> None:
    """Raise `ImportFileError` where a prompt has two vectors of one item."""
    items = pl.Series("item", given.item_of_row) if given.item_of_row is not None else pl.lit(0)
    keys = pl.DataFrame([prompt_ids]).with_columns(items.alias("item"))
    twice = keys.is_duplicated().arg_true().to_list()
    if twice:
        same = keys.with_row_index("row").filter(
            pl.struct("prompt_id", "item") == keys.row(twice[0], named=True)
        )["row"]
        raise ImportFileError(
            f"{file}: rows {same[0]} and {same[1]} of the index are the same prompt at the same "
            f"layer ({len(twice)} rows are such duplicates): keep one of each"
        )


def _row_count(given: GivenFile) -> int:
    return len(given.index) * (1 if given.item_of_row is not None else len(given.items))


def _register(root: Path, run: Run, model: GivenModel) -> None:
    if not data_file(root, "models", model.model_id).exists():
        table = rows_table("models", [model.row(run.run_id)])
        write_rows(root, "models", table, name=model.model_id)


@dataclass
class _Writer:
    """Collects vectors by item and commits them, a file for every 48 MB."""

    root: Path
    run: Run
    file: Path
    model: GivenModel
    template: str
    prompts: pl.DataFrame
    known_rows: int = 0
    _parts: dict[Item, list[Part]] = field(default_factory=lambda: defaultdict(list))
    _bytes: int = 0

    @cached_property
    def _stored(self) -> dict[str, Items]:
        """What is there from the start: nobody else writes while the model's lock is held."""
        return stored_items(self.root, self.model.name, self.model.model_id, self.template)

    @cached_property
    def _connection(self) -> Connection:
        return connect(self.root)

    def add(self, item: Item, part: Part) -> None:
        with np.errstate(over="ignore"):
            vectors = np.asarray(part.vectors, dtype=np.float32)
        bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
        if len(bad):
            raise NonFiniteError(
                f"{self.file}: row {part.places[bad[0]]} of the index holds NaN or infinity at "
                f"layer {part.item.layer}, or a number that float32 has no room for"
            )
        self._parts[item].append(Part(item, part.places, vectors))
        self._bytes += vectors.nbytes
        if self._bytes >= _FLUSH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Commit what was added, as one file with a row group for each item."""
        groups = []
        for item in sorted(self._parts):
            parts = self._parts.pop(item)
            places = np.concatenate([part.places for part in parts])
            vectors = np.concatenate([part.vectors for part in parts])
            is_new = self._is_new(item, places, vectors)
            if is_new.any():
                groups.append(self._table(item, places[is_new], vectors[is_new]))
        self._bytes = 0
        if not groups:
            return
        keys = [group.select(["prompt_id", "layer", "site", "pooling"]) for group in groups]
        name = content_key(
            self.model.model_id, self.template, [table.to_pydict() for table in keys]
        )
        write_rows(self.root, "activations", groups, name=name, partition=self.model.name)
        self.run.rows += sum(len(group) for group in groups)

    def _is_new(self, item: Item, places: np.ndarray, vectors: np.ndarray) -> np.ndarray:
        """Which rows are not stored; raises `ImportFileError` for one stored with other numbers."""
        ids = self.prompts["prompt_id"].to_numpy()[places]
        is_new = np.array([item not in self._stored.get(name, ()) for name in ids])
        known = {ids[at]: at for at in np.flatnonzero(~is_new)}
        if known:
            keys = {
                "model_id": self.model.model_id,
                "site": item.site,
                "pooling": item.pooling,
                "template": self.template,
            }
            there = layer_batches(self._connection, self.model.name, keys, item.layer)
            for found, stored in there:
                for name, vector in zip(found.to_pylist(), stored, strict=True):
                    if name in known and not np.array_equal(vectors[known[name]], vector):
                        raise ImportFileError(
                            f"prompt {name} at block {item.layer} of {self.model.name} is there "
                            "with other numbers: vectors of other weights or of another "
                            "computation need another --revision, --computed-with or --model"
                        )
            self.known_rows += len(known)
        return is_new

    def _table(self, item: Item, places: np.ndarray, vectors: np.ndarray) -> pa.Table:
        count = len(places)
        rows = self.prompts[places]
        columns: dict[str, Any] = {
            "model_id": [self.model.model_id] * count,
            "prompt_id": rows["prompt_id"].to_arrow(),
            **{
                name: np.full(count, value, np.int16) if name == "layer" else [value] * count
                for name, value in item._asdict().items()
            },
            "template": [self.template] * count,
            "vector": vector_array(vectors),
            "norm": np.linalg.norm(vectors, axis=1).astype(np.float32),
            **_pooled_span(rows),
            "run_id": [self.run.run_id] * count,
        }
        schema = TABLES["activations"].file_schema
        return pa.table({name: columns[name] for name in schema.names}).cast(schema)


def _pooled_span(rows: pl.DataFrame) -> dict[str, Any]:
    """Which tokens were pooled, where the index says all of it; else nothing is known of them."""
    count = len(rows)
    unknown = {
        "token_count": [0] * count,
        "pooled_start": [0] * count,
        "pooled_end": [0] * count,
        "pooled_tokens": pa.array([[]] * count, pa.list_(pa.string())),
        "rendered_hash": [UNKNOWN] * count,
    }
    if not unknown.keys() <= set(rows.columns) or rows["pooled_tokens"].dtype != pl.List(pl.String):
        return unknown
    said = {name: rows[name].to_arrow() for name in unknown}
    return unknown if any(column.null_count for column in said.values()) else said
