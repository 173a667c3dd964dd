"""The job: vectors that others computed, from a file into the warehouse, with prompts and labels.

The rows satisfy the invariants of rows that our jobs write: one width, finite, each key once, the
layer a zero-based block whose output the vector is. Rows that are stored already are compared and
not written again. Nothing about the model can be looked up, so it is keyed by its description: two
descriptions are two models, and none is ever a model that a job of ours has run.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from axes.ingest.external.files import (
    PLACE_COLUMNS,
    Card,
    ExternalFile,
    Part,
    open_file,
    read_index,
)
from axes.ingest.forward.activation_keys import Item, Items, stored_items
from axes.ingest.prompt_sources import PromptSource, select_columns
from axes.ingest.prompts import require_set_name, write_prompts
from axes.ingest.requests import ExternalActivationRequest, PromptRequest
from axes.warehouse.errors import (
    ImportFileError,
    LabelError,
    LayerError,
    ModelError,
    NonFiniteError,
    PromptError,
)
from axes.warehouse.handle import Warehouse
from axes.warehouse.layers import layer_batches
from axes.warehouse.names import IMPORTED, RESID_POST, UNKNOWN
from axes.warehouse.progress import track
from axes.warehouse.runs import Run, record_run
from axes.warehouse.storage.store import locked, store_at
from axes.warehouse.writer import CHUNK_BYTES, content_key, rows_table, vector_array, write_rows

CONVENTIONS = ("blocks", "hidden_states", "block_inputs")
_FLUSH_BYTES = CHUNK_BYTES


@dataclass(frozen=True)
class ImportedActivations:
    """What an import did: `rows` were written, `known_rows` were stored with the same vectors.

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


def import_activations(root: Path, request: ExternalActivationRequest) -> ImportedActivations:
    """Write the vectors of a file that `open_file` reads, and their prompts and labels.

    Raises `ImportFileError`, `ModelError`, `LayerError`, `PromptError`, `LabelError` or
    `NonFiniteError`; files committed before an error stay, and are skipped the next time.
    """
    store_at(root).init()
    external = open_file(
        request.file, request.index, layer_ids=request.layer_ids, pooling=request.pooling
    )
    request = _with_card(request, external.card)
    model = describe_model(request.model, width=external.d_model)
    blocks = _blocks_of_items(external.items, request, model)
    prompts = read_index(root, external.index.drop(PLACE_COLUMNS, strict=False))
    _require_distinct(request.file, external, prompts["prompt_id"])
    parameters = {**vars(request), "model_id": model.model_id}
    with (
        locked(root, model.model_id, notice=f"{model.name} is being imported: waiting"),
        record_run(root, "activations import", parameters) as run,
    ):
        _write_prompts(root, run, request, prompts)
        if not Warehouse.open_tables(root, "models").has("models", model.model_id):
            write_rows(
                root, "models", rows_table("models", [model.row(run.run_id)]), name=model.model_id
            )
        run.rows = 0
        template = request.template or "raw"
        # No other job writes while the model's lock is held.
        stored = stored_items(root, model.name, model.model_id, template)
        writer = _Writer(run, request.file, template, model, prompts, stored)
        with track(f"import {model.name}", _row_count(external), "rows") as advance:
            for part in external.parts():
                if part.item in blocks:
                    writer.add(blocks[part.item], part)
                advance(len(part.places))
        writer.flush()
    return ImportedActivations(
        model=model.name,
        model_id=model.model_id,
        run_id=run.run_id,
        prompt_set=request.prompt_set,
        prompt_count=prompts["prompt_id"].n_unique(),
        layers=sorted({item.layer for item in blocks.values()}),
        rows=run.rows,
        known_rows=writer.known_rows,
        left_out=_row_count(external) - run.rows - writer.known_rows,
    )


def _with_card(request: ExternalActivationRequest, card: Card) -> ExternalActivationRequest:
    """The request, completed by what the file's card says."""
    template = request.template or card.get("template") or "raw"
    if not re.fullmatch(r"raw|chat(\+\w+[:=][\w.-]+)*", template):
        raise ModelError(
            f"unknown template {template}: it is raw, chat or a name such as chat+system:HASH"
        )
    names = ("layers_are", "site", "pooling", "prompt_set")
    stated: dict[str, Any] = {name: getattr(request, name) or card.get(name) for name in names}
    for name in ("layers_are", "site") if request.layer_ids else ():
        if stated[name] != card.get(name):
            raise LayerError(
                f"{request.file}: {name} is {stated[name]}, and --layer-ids is for a folder of "
                "vLLM (block_inputs) or vLLM-Lens (blocks), of resid_post: leave that out"
            )
    model = {**card.get("model", {}), **request.model}
    return replace(request, template=template, model=model, **stated)


def _blocks_of_items(
    items: Sequence[Item], request: ExternalActivationRequest, model: ExternalModel
) -> dict[Item, Item]:
    """Item of the file -> our item: blocks from 0 on, with site and pooling."""
    if request.layers_are not in CONVENTIONS:
        raise LayerError(
            "which layer is number N? --layers-are blocks: the output of block N; "
            "--layers-are hidden_states: transformers' hidden_states[N], so the output of N - 1; "
            "--layers-are block_inputs: the input of block N, so the output of N - 1 for all N"
        )
    blocks: dict[Item, Item] = {}
    for item in items:
        site = item.site or request.site or RESID_POST
        pooling = item.pooling or request.pooling
        if pooling is None:
            raise ImportFileError(
                "how did positions become one vector? --pooling last, mean, last5_mean, ..., "
                "or a column pooling"
            )
        layer = item.layer
        if request.layers_are != "blocks":
            if site != RESID_POST:
                raise LayerError(f"{request.layers_are} are {RESID_POST}, and {site} is stated")
            if layer == model.layer_count and request.layers_are == "hidden_states":
                if request.skip_normed:
                    continue
                raise LayerError(
                    f"hidden_states[{layer}], the last of {model.layer_count} blocks, is behind "
                    "the final norm and not the block's output: --skip-normed leaves it out; if "
                    "you recorded blocks yourself, number them and say --layers-are blocks"
                )
            # The first entry is the input of block 0.
            layer, site = (layer - 1, site) if layer else (0, "resid_pre")
        if not 0 <= layer < model.layer_count:
            raise LayerError(
                f"layer {item.layer} of {model.name} does not exist: it has {model.layer_count} "
                f"blocks, and numbers are {request.layers_are}"
            )
        blocks[item] = Item(layer, site, pooling)
    if len(set(blocks.values())) < len(blocks):
        raise LayerError("two layers of the file are the same block: state one site and pooling")
    return blocks


def _require_distinct(file: Path, external: ExternalFile, prompt_ids: pl.Series) -> None:
    """Raise `ImportFileError` where a prompt has two vectors of one item."""
    items = 0 if external.item_of_row is None else external.item_of_row
    keys = pl.DataFrame({"prompt_id": prompt_ids, "item": items}).with_row_index("row")
    same = keys.group_by("prompt_id", "item", maintain_order=True).agg("row")["row"]
    duplicates = same.filter(same.list.len() > 1).to_list()
    if duplicates:
        (first, second, *_), count = duplicates[0], sum(map(len, duplicates))
        raise ImportFileError(
            f"{file}: rows {first} and {second} of the index are the same prompt at the same "
            f"layer ({count} rows are such duplicates): keep one of each"
        )


def _row_count(external: ExternalFile) -> int:
    item_count = 1 if external.item_of_row is not None else len(external.items)
    return len(external.index) * item_count


@dataclass
class _Writer:
    """Collects vectors by item and commits them, a file for every 48 MB."""

    run: Run
    file: Path
    template: str
    model: ExternalModel
    prompts: pl.DataFrame
    stored: Mapping[str, Items]
    known_rows: int = 0
    _parts: dict[Item, list[Part]] = field(default_factory=lambda: defaultdict(list))
    _bytes: int = 0

    @cached_property
    def _warehouse(self) -> Warehouse:
        return Warehouse.open(self.run.root)

    def add(self, item: Item, part: Part) -> None:
        with np.errstate(over="ignore"):
            vectors = np.asarray(part.vectors, dtype=np.float32)
        bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
        if len(bad):
            raise NonFiniteError(
                f"{self.file}: row {part.places[bad[0]]} of the index holds NaN or "
                f"infinity at layer {part.item.layer}, or a number that float32 has no room for"
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
        key = ["prompt_id", "layer", "site", "pooling"]
        keys = [group.select(key).to_pydict() for group in groups]
        name = content_key(self.model.model_id, self.template, keys)
        write_rows(self.run.root, "activations", groups, name=name, partition=self.model.name)
        self.run.rows += sum(len(group) for group in groups)

    def _is_new(self, item: Item, places: np.ndarray, vectors: np.ndarray) -> np.ndarray:
        """Which rows are not stored; raises `ImportFileError` for one stored with other numbers."""
        ids = self.prompts["prompt_id"].to_numpy()[places]
        is_new = np.array([item not in self.stored.get(name, ()) for name in ids])
        row_of_prompt = {ids[row]: row for row in np.flatnonzero(~is_new)}
        if row_of_prompt:
            keys = {"model_id": self.model.model_id, "template": self.template}
            keys |= {"site": item.site, "pooling": item.pooling}
            batches = layer_batches(self._warehouse.connection, self.model.name, keys, item.layer)
            for names, stored in batches:
                for name, vector in zip(names.to_pylist(), stored, strict=True):
                    row = row_of_prompt.get(name)
                    if row is not None and not np.array_equal(vectors[row], vector):
                        raise ImportFileError(
                            f"prompt {name} at block {item.layer} of {self.model.name} is stored "
                            "with other numbers: vectors of other weights or of another "
                            "computation need another --revision, --computed-with or --model"
                        )
            self.known_rows += len(row_of_prompt)
        return is_new

    def _table(self, item: Item, places: np.ndarray, vectors: np.ndarray) -> pa.Table:
        rows = self.prompts[places]
        return rows_table(
            "activations",
            [],
            **item._asdict(),
            model_id=self.model.model_id,
            template=self.template,
            run_id=self.run.run_id,
            prompt_id=rows["prompt_id"].to_arrow(),
            vector=vector_array(vectors),
            norm=np.linalg.norm(vectors, axis=1).astype(np.float32),
            **_pooled_span(rows),
        )


def _pooled_span(rows: pl.DataFrame) -> dict[str, object]:
    """Which tokens were pooled, where the index has every column of it, without nulls."""
    unknown: dict[str, object] = dict.fromkeys(("token_count", "pooled_start", "pooled_end"), 0)
    unknown |= {"pooled_tokens": [[]] * len(rows), "rendered_hash": UNKNOWN}
    if not unknown.keys() <= set(rows.columns) or rows["pooled_tokens"].dtype != pl.List(pl.String):
        return unknown
    stated = {name: rows[name].to_arrow() for name in unknown}
    return unknown if any(column.null_count for column in stated.values()) else stated


_NUMBERS = ("layer_count", "d_model")
_NEEDED = {"name": "--model NAME", "layer_count": "--layer-count N"}


@dataclass(frozen=True)
class ExternalModel:
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
        """A key of the description, apart from the licence."""
        return content_key(IMPORTED, {**asdict(self), "license": None})

    def row(self, run_id: str) -> dict[str, object]:
        """Its row in `models`."""
        source = IMPORTED if self.computed_with is None else f"{IMPORTED}:{self.computed_with}"
        description = asdict(self)
        del description["computed_with"]
        return {
            "model": description.pop("name"),
            **description,
            "model_id": self.model_id,
            "source": source,
            "parameter_count": 0,
            "is_reference": False,
            "run_id": run_id,
        }


def read_description(path: Path) -> dict[str, object]:
    """The description of a model in a JSON file; raises `ModelError` for another kind of file."""
    try:
        description = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(description, dict):
        raise ModelError(f"{path} holds no JSON object: keys among {', '.join(_KEYS)} are expected")
    return description


def describe_model(description: Mapping[str, Any], *, width: int) -> ExternalModel:
    """A model by its description, of vectors of `width` numbers; raises `ModelError`."""
    stated = {key: value for key, value in description.items() if value is not None}
    stated.setdefault("d_model", width)
    if unknown := sorted(stated.keys() - set(_KEYS)):
        raise ModelError(f"unknown key {unknown[0]} of a model: keys are {', '.join(_KEYS)}")
    if missing := [name for name in _NEEDED if name not in stated]:
        raise ModelError(
            f"the model's {' and '.join(missing)} must be stated: "
            + ", ".join(_NEEDED[name] for name in missing)
        )
    for name in _NUMBERS:
        if not isinstance(stated[name], int) or stated[name] < 1:
            raise ModelError(f"{name} is {stated[name]!r}, an integer of 1 or more is expected")
    if stated["d_model"] != width:
        raise ModelError(
            f"the vectors have {width} numbers, d_model of {stated['name']} is {stated['d_model']}"
        )
    texts = {key: str(value) for key, value in stated.items() if key not in _NUMBERS}
    return ExternalModel(layer_count=stated["layer_count"], d_model=width, **texts)


_KEYS = tuple(field.name for field in fields(ExternalModel))


def _write_prompts(
    root: Path, run: Run, request: ExternalActivationRequest, prompts: pl.DataFrame
) -> None:
    """Write the prompts as a set, with labels where there are any, unless it holds them already.

    Raises `PromptError` where the set is stored with other prompts, or no name is given for texts;
    `LabelError` for labels that are not understood or contradict others.
    """
    prompt_set, positive = request.prompt_set, request.positive
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
    rules = PromptRequest(positive=positive, keep_whitespace=True)
    write_prompts(root, run, prompt_set, frame, rules, may_be_part=True)


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
