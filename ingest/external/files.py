"""Files of vectors that others computed, and the index of their prompts.

*Arrays* (.npz, .safetensors): one `[prompt, d_model]` for each layer, whose name holds the layer's
number and perhaps the site (`layer_12`, `blocks.12.hook_resid_post`), and next to the file an index
with a row for each prompt. One array of any other name goes with an index that has a row for each
of its rows, and a column `layer`.
*Tables* (.parquet, .arrow, a folder of HF datasets): a row for each prompt and layer, with the
columns of the index, `layer` and `vector`.

Vectors are read some rows at a time (of an .npz: one layer), so that a file may be larger than
memory; nothing in it is ever unpickled. Folders of a serving engine: `engine_files`.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.dataset as pads

from axes.ingest.forward.activation_keys import Item
from axes.ingest.prompt_sources import read_file
from axes.ingest.prompts import normalise, prompt_id
from axes.warehouse.errors import ImportFileError, LayerError, PromptError
from axes.warehouse.handle import Warehouse
from axes.warehouse.names import SITES
from axes.warehouse.tables.bounds import (
    read_npz_headers,
    require_bounded_parquet,
    require_own_files,
)

CARD = "card"
# Columns that describe the vector and not the prompt.
PLACE_COLUMNS = ("layer", "site", "pooling")
_INDEX_SUFFIXES = (".parquet", ".csv", ".jsonl", ".txt")
_FLOATS = ("F16", "BF16", "F32", "F64")
PART_BYTES = 16 << 20


class Card(TypedDict, total=False):
    """What a file says of its vectors: keys of `ExternalModel`, and options of the import."""

    model: dict[str, object]
    layers_are: str
    site: str
    pooling: str
    template: str
    prompt_set: str


@dataclass(frozen=True)
class Part:
    """Some vectors of one item; `places` are the rows of the index that they belong to."""

    item: Item
    places: np.ndarray
    vectors: np.ndarray


@dataclass(frozen=True)
class ExternalFile:
    """A file before its vectors are read.

    `items` have the layer as the file numbers it, and an empty site or pooling where the file does
    not say; `item_of_row` is the item of each row of the index, None where every row has all.
    """

    card: Card
    index: pl.DataFrame
    items: list[Item]
    item_of_row: np.ndarray | None
    d_model: int
    parts: Callable[[], Iterator[Part]]


def open_file(
    path: Path,
    index: Path | None = None,
    *,
    layer_ids: Sequence[int] = (),
    pooling: str | None = None,
) -> ExternalFile:
    """Open a file of vectors; `index` defaults to a file NAME.index.parquet, .csv, .jsonl or .txt.

    `layer_ids` and `pooling` are of a serving engine's folder, which has the vectors of all tokens.
    Raises `ImportFileError` where it cannot be read as one of the two shapes, `LayerError` where it
    does not say the layer of its vectors, `PromptError` for an index that cannot be read.
    """
    readers = {".npz": _open_npz, ".safetensors": _open_safetensors}
    from safetensors import SafetensorError

    from axes.ingest.external.engine_files import engine_suffix, open_engine_folder

    try:
        if engine_suffix(path) is not None:
            described = read_file(str(index or _index_of(path)))
            return open_engine_folder(path, described, layer_ids, pooling)
        if path.suffix in readers:
            card, arrays = readers[path.suffix](path)
            return _of_arrays(path, card, arrays, read_file(str(index or _index_of(path))))
        if index is not None:
            raise ImportFileError(f"{path} is a table with its index: leave --index out")
        return _of_table(path, *_open_table(path))
    except (OSError, ValueError, zipfile.BadZipFile, pa.ArrowException, SafetensorError) as error:
        raise ImportFileError(f"{path} cannot be read: {' '.join(str(error).split())}") from error


@dataclass(frozen=True)
class _Array:
    """An array that is not read yet: `read(start, stop)` brings rows of it."""

    shape: tuple[int, ...]
    read: Callable[[int, int], np.ndarray]


def _open_npz(path: Path) -> tuple[Card, dict[str, _Array]]:
    shapes = {}
    for name, (shape, dtype) in read_npz_headers(path).items():
        if dtype.hasobject:
            raise ImportFileError(f"{path}: {name} holds pickled objects, which are not read")
        if dtype.kind not in "fU":
            raise ImportFileError(f"{path}: {name} holds {dtype}, floats are expected")
        shapes[name] = shape
    loaded = np.load(path)
    card: Card = json.loads(str(loaded[CARD])) if shapes.pop(CARD, None) is not None else {}

    def reader(name: str) -> Callable[[int, int], np.ndarray]:
        kept: list[np.ndarray] = []

        def read(start: int, stop: int) -> np.ndarray:
            if not kept:
                kept.append(loaded[name])
            rows = kept[0][start:stop]
            if stop >= len(kept[0]):
                kept.clear()
            return rows

        return read

    return card, {name: _Array(shape, reader(name)) for name, shape in shapes.items()}


def _open_safetensors(path: Path) -> tuple[Card, dict[str, _Array]]:
    from safetensors import safe_open

    # By way of torch, since numpy has no bfloat16.
    file = safe_open(path, framework="pt")
    arrays = {}
    for name in file.keys():  # noqa: SIM118 - it is not a mapping
        part = file.get_slice(name)
        if part.get_dtype() not in _FLOATS:
            raise ImportFileError(f"{path}: {name} holds {part.get_dtype()}, floats are expected")

        def read(start: int, stop: int, part: Any = part) -> np.ndarray:
            return part[start:stop].float().numpy()

        arrays[name] = _Array(tuple(part.get_shape()), read)
    return json.loads((file.metadata() or {}).get(CARD, "{}")), arrays


def _index_of(path: Path) -> Path:
    """The index next to a file of arrays."""
    for suffix in _INDEX_SUFFIXES:
        if (index := path.with_suffix(f".index{suffix}")).exists():
            return index
    raise PromptError(
        f"no {path.with_suffix('.index.parquet').name} (or .csv, .jsonl, .txt) next to {path}: "
        "give --index FILE, a row for each prompt with a column text or prompt_id"
    )


def _of_arrays(
    path: Path, card: Card, arrays: dict[str, _Array], index: pl.DataFrame
) -> ExternalFile:
    if not arrays:
        raise ImportFileError(f"{path} holds no array")
    for name, array in arrays.items():
        if len(array.shape) != 2:
            raise ImportFileError(
                f"{path}: {name} is of shape {list(array.shape)}, an array [prompt, d_model] for "
                "each layer is expected: split it, and name the parts layer_0, layer_1, ..."
            )
        if array.shape[0] != len(index):
            raise ImportFileError(
                f"{path}: {name} has {array.shape[0]} rows, the index {len(index)}: one for each"
            )
    widths = {array.shape[1] for array in arrays.values()}
    if len(widths) > 1:
        raise ImportFileError(f"{path} holds vectors of {min(widths)} and {max(widths)} numbers")
    (d_model,) = widths
    if "layer" in index.columns and len(arrays) == 1:
        (array,) = arrays.values()
        return _long(card, index, d_model, lambda: _row_by_row(array))
    items = {name: _item_of_name(path, name) for name in arrays}
    if len(set(items.values())) < len(items):
        raise ImportFileError(f"{path}: two arrays are of one layer: {', '.join(items)}")

    def parts() -> Iterator[Part]:
        for name, array in arrays.items():
            for start, vectors in _row_by_row(array):
                yield Part(items[name], np.arange(start, start + len(vectors)), vectors)

    return ExternalFile(card, index, list(items.values()), None, d_model, parts)


def _item_of_name(path: Path, name: str) -> Item:
    """`blocks.12.hook_resid_post` is of layer 12 and a site, `layer_12` of a layer alone."""
    numbers = re.findall(r"\d+", name)
    if len(numbers) != 1:
        raise LayerError(
            f"{path}: of which layer is {name}? Name it layer_N, "
            "or give a column layer in the index of a file of one array"
        )
    sites = [site for site in SITES if site in name]
    return Item(int(numbers[0]), sites[0] if sites else "", "")


def _row_by_row(array: _Array) -> Iterator[tuple[int, np.ndarray]]:
    step = max(PART_BYTES // (4 * array.shape[1]), 1)
    for start in range(0, array.shape[0], step):
        yield start, array.read(start, min(start + step, array.shape[0]))


def _open_table(path: Path) -> tuple[Card, pads.Dataset]:
    formats = {".parquet": "parquet", ".arrow": "ipc", ".feather": "ipc"}
    if path.is_dir():
        return _open_folder(path)
    if path.suffix not in formats:
        raise ImportFileError(
            f"{path}: a .npz, .safetensors, .parquet or .arrow file, or a folder of HF datasets, "
            "is expected"
        )
    if path.suffix == ".parquet":
        require_bounded_parquet(path)
    dataset = pads.dataset(path, format=formats[path.suffix])
    metadata = dataset.schema.metadata or {}
    return json.loads(metadata.get(CARD.encode(), b"{}")), dataset


def _open_folder(path: Path) -> tuple[Card, pads.Dataset]:
    from datasets import Dataset

    if (path / "dataset_dict.json").exists():
        splits = sorted(part.name for part in path.iterdir() if part.is_dir())
        raise ImportFileError(f"{path} holds the splits {', '.join(splits)}: give one's folder")
    try:
        files = json.loads((path / "state.json").read_text())["_data_files"]
        own = ["state.json", "dataset_info.json", *(file["filename"] for file in files)]
        require_own_files(path, own)
        loaded = Dataset.load_from_disk(str(path))
    except (KeyError, TypeError, AttributeError) as error:
        raise ImportFileError(f"{path} is not a data set of HF: {error!r}") from error
    described = loaded.info.description
    card: Card = json.loads(described) if described.startswith("{") else {}
    return card, pads.dataset(loaded.flatten_indices().data.table)


def _of_table(path: Path, card: Card, dataset: pads.Dataset) -> ExternalFile:
    names = dataset.schema.names
    if missing := {"layer", "vector"} - set(names):
        raise LayerError(
            f"{path} has no column {' and '.join(sorted(missing))} (it has {', '.join(names)}): "
            "a table has a row for each prompt and layer"
        )
    read = dataset.to_table(columns=[name for name in names if name != "vector"])
    index = pl.from_arrow(read)
    assert isinstance(index, pl.DataFrame)
    if index.is_empty():
        raise ImportFileError(f"{path} holds no row")
    first = _matrix(path, dataset.head(1, columns=["vector"]).column("vector").combine_chunks())
    width = first.shape[1]

    def stream() -> Iterator[tuple[int, np.ndarray]]:
        start = 0
        rows = max(PART_BYTES // (4 * width), 1)
        for batch in dataset.to_batches(columns=["vector"], batch_size=rows):
            vectors = _matrix(path, batch.column("vector"))
            if len(vectors):
                if vectors.shape[1] != width:
                    raise ImportFileError(
                        f"{path} holds vectors of {width} and of {vectors.shape[1]} numbers"
                    )
                yield start, vectors
            start += len(vectors)

    return _long(card, index, width, stream)


def _matrix(path: Path, column: pa.Array) -> np.ndarray:
    """Lists of floats, all as long as the first, as a matrix."""
    if column.null_count or not hasattr(column.type, "value_type"):
        raise ImportFileError(f"{path}: vector holds {column.type}, or nulls; lists are expected")
    lengths = column.value_lengths().to_numpy(zero_copy_only=False)
    if len(lengths) and (lengths != lengths[0]).any():
        raise ImportFileError(
            f"{path} holds vectors of {lengths.min()} and of {lengths.max()} numbers"
        )
    values = column.flatten().to_numpy(zero_copy_only=False)
    return values.reshape(len(lengths), -1) if len(lengths) else np.empty((0, 0), np.float32)


def _long(
    card: Card,
    index: pl.DataFrame,
    d_model: int,
    stream: Callable[[], Iterator[tuple[int, np.ndarray]]],
) -> ExternalFile:
    """A file whose rows are of any layer each, as its index says."""
    try:
        layers = index["layer"].cast(pl.Int64)
    except pl.exceptions.PolarsError as error:
        raise LayerError(f"the column layer holds no numbers: {index['layer'][0]!r}") from error
    if layers.null_count():
        raise LayerError(f"row {layers.is_null().arg_true()[0]} has no layer")
    site, pooling = (
        pl.col(name).cast(pl.String).fill_null("") if name in index.columns else pl.lit("")
        for name in PLACE_COLUMNS[1:]
    )
    places = index.select(layers.alias("layer"), site=site, pooling=pooling)
    distinct = places.unique(maintain_order=True).with_row_index("item")
    items = [Item(*row) for row in distinct.select(PLACE_COLUMNS).iter_rows()]
    codes = places.join(distinct, on=PLACE_COLUMNS, how="left", maintain_order="left")
    item_of_row = codes["item"].to_numpy()

    def parts() -> Iterator[Part]:
        for start, vectors in stream():
            codes_here = item_of_row[start : start + len(vectors)]
            for code in np.unique(codes_here):
                at = np.flatnonzero(codes_here == code)
                yield Part(items[code], start + at, vectors[at])

    return ExternalFile(card, index, items, item_of_row, d_model, parts)


def read_index(root: Path, index: pl.DataFrame) -> pl.DataFrame:
    """The index with a column `prompt_id` that is ours: by its texts, else by its ids.

    Raises `PromptError` for an index with neither, an id that is not that of its text, or ids alone
    that are in no set of the warehouse.
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
    warehouse = Warehouse.open_tables(root, "prompts")
    stored = warehouse.column("select distinct prompt_id from prompts")
    unknown = index.filter(~pl.col("prompt_id").is_in(stored))["prompt_id"]
    if len(unknown):
        raise PromptError(
            f"{len(unknown)} prompt ids are in no set of {root}, the first is {unknown[0]}: "
            "import their set first, or give a column text"
        )
    return index


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
        "prompt_id is not the id that this warehouse gives to the text next to it: "
        "leave that column out"
    )
