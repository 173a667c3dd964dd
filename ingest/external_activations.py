"""The job: vectors that others computed, from a file into the warehouse, with prompts and labels.

The rows are under the invariants of those that our own jobs write: one width, finite, each key
once, the layer a zero-based block whose output the vector is. What is there already is compared and
not written again.

What is said of a model whose vectors others computed, and its row in `models`.

Nothing of it can be looked up here, so it is keyed by all that is said: two descriptions are two
models, and none is ever one that a job of ours has run.

The prompts of vectors that others computed: found by id, or imported with their labels.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from axes.ingest.external_files import PLACE_COLUMNS, GivenFile, Part, open_given
from axes.ingest.forward.activation_keys import Item, Items, stored_items
from axes.ingest.prompt_sources import PromptSource, select_columns
from axes.ingest.prompts import normalise, prompt_id, require_set_name, write_prompts
from axes.warehouse.connection import Connection, connect, connect_tables, rows
from axes.warehouse.errors import (
    ImportFileError,
    LabelError,
    LayerError,
    ModelError,
    NonFiniteError,
    PromptError,
)
from axes.warehouse.layers import layer_batches
from axes.warehouse.layout import init_root
from axes.warehouse.ledger import locked
from axes.warehouse.names import IMPORTED, RESID_POST, UNKNOWN
from axes.warehouse.progress import track
from axes.warehouse.runs import Run, record_run
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


_NUMBERS = ("layer_count", "d_model")
_NEEDED = {"name": "--model NAME", "layer_count": "--layer-count N"}


@dataclass(frozen=True)
class GivenModel:
    """A model as its owner describes it; `computed_with` says what computed the vectors."""

    name: str
    layer_count: int
    d_model: int
    revision: str | None = None
    computed_with: str | None = None
    architecture: str = UNKNOWN
    dtype: str = UNKNOWN
    weights_hash: str = UNKNOWN
    tokenizer_hash: str = UNKNOWN
    template_hash: str | None = None
    license: str | None = None

    @property
    def model_id(self) -> str:
        """A key of what is said of it, apart from the licence."""
        return content_key(IMPORTED, {**asdict(self), "license": None})

    def row(self, run_id: str) -> dict[str, Any]:
        """Its row in `models`."""
        source = IMPORTED if self.computed_with is None else f"{IMPORTED}:{self.computed_with}"
        said = {key: value for key, value in asdict(self).items() if key != "computed_with"}
        return {
            **said,
            "model": said.pop("name"),
            "model_id": self.model_id,
            "source": source,
            "parameter_count": 0,
            "is_reference": False,
            "run_id": run_id,
        }


def read_description(path: Path) -> dict[str, Any]:
    """What a JSON file says of a model; raises `ModelError` where it is no JSON object."""
    try:
        said = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(said, dict):
        raise ModelError(f"{path} holds no JSON object: keys among {', '.join(_KEYS)} are expected")
    return said


def describe(said: Mapping[str, Any], *, width: int) -> GivenModel:
    """The model that is described, of vectors of `width` numbers; raises `ModelError`."""
    given = {key: value for key, value in said.items() if value is not None}
    given.setdefault("d_model", width)
    if strange := sorted(given.keys() - set(_KEYS)):
        raise ModelError(f"unknown key {strange[0]} of a model: keys are {', '.join(_KEYS)}")
    if lacking := [name for name in _NEEDED if name not in given]:
        raise ModelError(
            f"the model's {' and '.join(lacking)} must be said: "
            + ", ".join(_NEEDED[name] for name in lacking)
        )
    for name in _NUMBERS:
        if not isinstance(given[name], int) or given[name] < 1:
            raise ModelError(f"{name} is {given[name]!r}, a whole number of 1 or more is expected")
    if given["d_model"] != width:
        raise ModelError(
            f"the vectors have {width} numbers, d_model of {given['name']} is {given['d_model']}"
        )
    texts = {key: str(value) for key, value in given.items() if key not in _NUMBERS}
    return GivenModel(layer_count=given["layer_count"], d_model=width, **texts)


_KEYS = tuple(field.name for field in fields(GivenModel))


def given_prompts(root: Path, index: pl.DataFrame) -> pl.DataFrame:
    """The index with a column `prompt_id` that is ours: by its texts, else by the ids it gives.

    Raises `PromptError` for an index with neither, an id that is not that of its text, or ids alone
    that the warehouse does not know.
    """
    if "text" not in index.columns and "prompt" in index.columns:
        index = index.rename({"prompt": "text"})
    if "text" in index.columns:
        return _by_text(index)
    if "prompt_id" not in index.columns:
        raise PromptError(
            f"the index has neither text nor prompt_id; it has {', '.join(index.columns) or '-'}"
        )
    if "label" in index.columns or "is_positive" in index.columns:
        raise PromptError("labels come with texts: give a column text, or leave them out")
    found = rows(connect_tables(root, "prompts"), "select distinct prompt_id from prompts")
    there = pl.Series([row["prompt_id"] for row in found], dtype=pl.String)
    unknown = index.filter(~pl.col("prompt_id").is_in(there.implode()))["prompt_id"]
    if len(unknown):
        raise PromptError(
            f"{len(unknown)} prompt ids are in no set of {root}, the first is {unknown[0]}: "
            "import their set first, or give a column text"
        )
    return index


def write_given_prompts(
    root: Path, run: Run, prompt_set: str | None, prompts: pl.DataFrame, positive: Sequence[str]
) -> None:
    """Write the prompts as a set, with labels where there are any, unless it holds them already.

    Raises `PromptError` where the set is there with other prompts, or no name is given for texts;
    `LabelError` for labels that are not understood or contradict others.
    """
    if "text" not in prompts.columns:
        return
    if prompt_set is None:
        raise PromptError("the file holds texts: name their set with --prompts SET")
    require_set_name(prompt_set)
    labels = [name for name in ("label", "is_positive") if name in prompts.columns]
    unique = prompts.unique(["prompt_id", *labels], keep="first", maintain_order=True)
    if "is_positive" in labels:
        unique, positive = _flagged(unique, positive)
    frame = select_columns(unique, PromptSource(prompt_set))
    write_prompts(
        root,
        run,
        prompt_set,
        frame,
        positive=positive,
        keep_whitespace=True,
        may_be_part=True,
    )


def _by_text(index: pl.DataFrame) -> pl.DataFrame:
    """Texts normalised as prompt sets are, and the ids of those."""
    distinct = index["text"].cast(pl.String).unique(maintain_order=True)
    if distinct.has_nulls() or (distinct.str.strip_chars() == "").any():
        raise PromptError("a row of the index has no text: leave it out, with its vectors")
    for keep_whitespace in (False, True):
        texts = {text: normalise(text, keep_whitespace=keep_whitespace) for text in distinct}
        ids = {text: prompt_id(kept) for text, kept in texts.items()}
        ours = index["text"].cast(pl.String).replace_strict(ids, return_dtype=pl.String)
        if "prompt_id" not in index.columns or ours.equals(index["prompt_id"]):
            return index.with_columns(
                pl.col("text").cast(pl.String).replace_strict(texts, return_dtype=pl.String),
                ours.alias("prompt_id"),
            )
    raise PromptError(
        "prompt_id is not the id that this warehouse gives to the text beside it: "
        "leave that column out"
    )


def _flagged(prompts: pl.DataFrame, positive: Sequence[str]) -> tuple[pl.DataFrame, Sequence[str]]:
    """The rows with a label each that has a flag, and which labels are the positive class."""
    flag = prompts["is_positive"]
    if flag.dtype != pl.Boolean:
        has_label = "label" in prompts.columns
        return (prompts if has_label else prompts.rename({"is_positive": "label"})), positive
    label = pl.when(pl.col("is_positive")).then(pl.lit("positive")).otherwise(pl.lit("negative"))
    label = pl.when(pl.col("is_positive").is_not_null()).then(label)
    if "label" in prompts.columns:
        label = pl.coalesce(pl.col("label").cast(pl.String), label)
    prompts = prompts.with_columns(label.alias("label"))
    kinds = {
        kind: set(prompts.filter(pl.col("is_positive") == kind)["label"]) for kind in (True, False)
    }
    if both := sorted(kinds[True] & kinds[False]):
        raise LabelError(f"the label {both[0]} is positive in one row and negative in another")
    return prompts, sorted(kinds[True])
