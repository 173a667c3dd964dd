"""Activations leave the warehouse: a prompt set at some layers, with prompts, labels and a card.

`safetensors`, `npz`
    an array `layer.{N}` `[prompt, d_model]` float32 for each layer, and beside the file
    NAME.index.parquet with a row for each of their rows
`parquet`, `arrow`, `datasets`
    a row for each prompt and layer: the columns of the index, `layer` and `vector`; `datasets` is
    a folder for `datasets.load_from_disk`

The card is JSON: in the header of safetensors, the array `card` of npz, the schema's metadata of
Parquet and Arrow, the description of a data set. `axes activations import` reads each of them. One
layer at a time is in memory, or less where that is much.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from axes.analysis.activations import Space, blocks, load_matrix
from axes.analysis.exchange.card import LAYER_CONVENTION
from axes.analysis.exchange.formats.contents import Card
from axes.analysis.exchange.formats.hub_folder import write_dataset_card
from axes.warehouse.errors import CoverageError, RootError
from axes.warehouse.handle import Warehouse
from axes.warehouse.layers import stored_layers
from axes.warehouse.progress import track
from axes.warehouse.storage.files import replacing

# The file of a data set on the hub.
DATA_FILE = "activations.parquet"
_WITH_INDEX = ("safetensors", "npz")

_INDEX = """
select
    prompts.prompt_id, prompts.text, prompts.label, prompts.is_positive, prompts.pair_id,
    prompts.source, prompts.category, prompts.split, prompts.license,
    activations.token_count, activations.pooled_start, activations.pooled_end,
    activations.pooled_tokens, activations.rendered_hash
from v_prompts as prompts
inner join activations on prompts.prompt_id = activations.prompt_id
where
    prompts.prompt_set = $prompt_set and activations.model = $model
    and activations.model_id = $model_id and activations.site = $site
    and activations.pooling = $pooling and activations.template = $template
    and activations.layer = $layer and prompts.position < $limit
order by prompts.position
"""


@dataclass(frozen=True)
class ExportedActivations:
    """What was written: `rows` vectors of `d_model` numbers, of `prompt_count` prompts."""

    path: str
    index: str | None
    model: str
    prompt_set: str
    layers: list[int]
    prompt_count: int
    rows: int
    d_model: int


def export_activations(
    warehouse: Warehouse,
    space: Space,
    prompt_set: str,
    to: str,
    output: Path,
    *,
    layers: Sequence[int] | None = None,
    limit: int | None = None,
) -> ExportedActivations:
    """Write the activations of a prompt set (its first `limit` prompts) to `output`.

    `layers` None: those that are stored. Raises `CoverageError` where rows are missing,
    `LayerError` for a layer that the model does not have, `RootError` for a folder that is there.
    """
    if output.is_dir():
        raise RootError(f"{output} is a folder and is there: give another name with -o")
    stored = stored_layers(warehouse.connection, space.model, space.columns, prompt_set)
    chosen = sorted(set(stored if layers is None else layers))
    first = chosen[0] if chosen else 0
    load_matrix(warehouse, space.at(first), prompt_set, limit=limit)
    index = warehouse.query(
        _INDEX,
        {
            **space.columns,
            "model": space.model,
            "layer": first,
            "prompt_set": prompt_set,
            "limit": 2**31 - 1 if limit is None else limit,
        },
    )
    card = _card(warehouse, space, prompt_set, chosen, len(index))
    prompt_ids = tuple(index.column("prompt_id").to_pylist())
    matrices = _layers(warehouse, space, prompt_set, chosen, limit, prompt_ids)
    output.parent.mkdir(parents=True, exist_ok=True)
    beside = output.with_suffix(".index.parquet") if to in _WITH_INDEX else None
    with replacing(output) as temporary:
        _WRITERS[to](temporary, card, index, space.d_model, matrices)
        if beside is not None:
            pq.write_table(index, temporary.with_name(beside.name))
    return ExportedActivations(
        path=str(output),
        index=None if beside is None else str(beside),
        model=space.model,
        prompt_set=prompt_set,
        layers=chosen,
        prompt_count=len(index),
        rows=len(index) * len(chosen),
        d_model=space.d_model,
    )


def export_dataset(
    warehouse: Warehouse, space: Space, prompt_set: str, folder: Path, **chosen: Any
) -> None:
    """Write a data set for the hub into a folder: Parquet, and README.md with its front matter.

    `chosen` are `layers` and `limit` of `export_activations`, which says what is raised.
    """
    path = folder / DATA_FILE
    export_activations(warehouse, space, prompt_set, "parquet", path, **chosen)
    card = json.loads(pq.read_schema(path).metadata[b"card"])
    labels = pq.read_table(
        path, columns=["is_positive", "license"], filters=[("layer", "=", card["layers"][0])]
    )
    write_dataset_card(folder, card, labels)


def _card(
    warehouse: Warehouse, space: Space, prompt_set: str, layers: list[int], row_count: int
) -> Card:
    """What an import needs to know, and what a reader wants to: values are JSON types."""
    (model,) = warehouse.query(
        """
        select
            model as name, layer_count, d_model, revision, architecture, dtype, weights_hash,
            tokenizer_hash, template_hash, license,
            nullif(regexp_replace(source, '^imported:?', ''), '') as computed_with
        from models
        where model_id = ?
        """,
        [space.model_id],
    ).to_pylist()
    return {
        "format": "safety-axes activations 1",
        "model": model,
        "model_id": space.model_id,
        "prompt_set": prompt_set,
        "layers_are": "blocks",
        "layer_convention": LAYER_CONVENTION,
        "layers": layers,
        "site": space.site,
        "pooling": space.pooling,
        "template": space.template,
        "row_count": row_count,
    }


# The layers in order, each with some of its rows at a time, in the order of the index.
Layers = Iterator[tuple[int, Iterator[np.ndarray]]]


def _layers(
    warehouse: Warehouse,
    space: Space,
    prompt_set: str,
    layers: Sequence[int],
    limit: int | None,
    prompt_ids: tuple[str, ...],
) -> Layers:
    """The rows of each layer as little-endian float32."""
    with track("export", len(layers), "layers") as advance:
        for layer in layers:
            matrix = load_matrix(warehouse, space.at(layer), prompt_set, limit=limit)
            if matrix.prompt_ids != prompt_ids:
                raise CoverageError(f"the rows of {prompt_set} changed while they were written")
            yield layer, (np.ascontiguousarray(block, "<f4") for (block,) in blocks(matrix.x))
            advance(1)


def _write_safetensors(
    path: Path, card: Card, index: pa.Table, d_model: int, layers: Layers
) -> None:
    """The file format as its documentation states it, since the library wants all tensors at once.

    https://huggingface.co/docs/safetensors: the header's length as u64, the header, the data.
    """
    size = len(index) * d_model * 4
    header: Card = {"__metadata__": {"card": json.dumps(card), "format": "np"}}
    for place, layer in enumerate(card["layers"]):
        header[f"layer.{layer}"] = {
            "dtype": "F32",
            "shape": [len(index), d_model],
            "data_offsets": [place * size, (place + 1) * size],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, parts in layers:
            for block in parts:
                file.write(block.data)


def _write_npz(path: Path, card: Card, index: pa.Table, d_model: int, layers: Layers) -> None:
    header = {"descr": "<f4", "fortran_order": False, "shape": (len(index), d_model)}
    with zipfile.ZipFile(path, "w") as archive:
        with archive.open("card.npy", "w") as member:
            np.lib.format.write_array(member, np.array(json.dumps(card)), allow_pickle=False)
        for layer, parts in layers:
            with archive.open(f"layer.{layer}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array_header_1_0(file, header)
                for block in parts:
                    file.write(block.data)


def _write_table(
    path: Path,
    card: Card,
    index: pa.Table,
    d_model: int,
    layers: Layers,
    *,
    open_writer: Callable[..., Any],
) -> None:
    vector = pa.field("vector", pa.list_(pa.float32(), d_model))
    fields = [*index.schema, pa.field("layer", pa.int16()), vector]
    schema = pa.schema(fields, {"card": json.dumps(card)})
    with open_writer(str(path), schema) as writer:
        for table in _tables(index, layers, schema):
            writer.write_table(table)


def _write_datasets(path: Path, card: Card, index: pa.Table, d_model: int, layers: Layers) -> None:
    """By way of one Arrow stream, which the library maps and does not read."""
    from datasets import Dataset, DatasetInfo, disable_progress_bars

    disable_progress_bars()
    path.mkdir()
    streamed = path.with_name(f"{path.name}.arrow")
    try:
        _write_table(streamed, card, index, d_model, layers, open_writer=pa.ipc.new_stream)
        info = DatasetInfo(description=json.dumps(card), features=None)
        Dataset.from_file(str(streamed), info=info).save_to_disk(str(path))
    finally:
        streamed.unlink(missing_ok=True)


def _tables(index: pa.Table, layers: Layers, schema: pa.Schema) -> Iterator[pa.Table]:
    """Some rows of a layer at a time, the index beside them."""
    for layer, parts in layers:
        start = 0
        for block in parts:
            rows = index.slice(start, len(block))
            start += len(block)
            vectors = pa.FixedSizeListArray.from_arrays(pa.array(block.reshape(-1)), block.shape[1])
            numbers = pa.array(np.full(len(block), layer, np.int16))
            yield pa.table([*rows.columns, numbers, vectors], schema=schema)


_WRITERS: dict[str, Callable[..., None]] = {
    "safetensors": _write_safetensors,
    "npz": _write_npz,
    "parquet": partial(_write_table, open_writer=pq.ParquetWriter),
    "arrow": partial(_write_table, open_writer=pa.ipc.new_file),
    "datasets": _write_datasets,
}
