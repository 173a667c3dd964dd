"""Activations as matrices: read in batches by layer, held in memory or in a file.

`layer_batches` reads the vectors of one layer straight from Parquet. SQL reads the same rows; this
way they do not pass through DuckDB's lists, which doubles the time. The index of keys names the
files with the layer, statistics the row groups in them. Under a memory limit DuckDB reads all the
same: it keeps to its limit, Arrow does not.

`allocate` makes room for a matrix: an array where it is small, else `StoredRows` in a file below
the root. Both are sliced alike, `rows[start:stop]` brings those rows into memory, so that what goes
through a matrix in blocks need not know where it lies. The file has no name (it is unlinked as soon
as it is open): it is gone with the process, however that ends.
"""

from __future__ import annotations

import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial, reduce
from hashlib import sha256
from itertools import chain, islice
from operator import and_
from pathlib import Path
from typing import IO, Any
from weakref import WeakKeyDictionary

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Float

from axes.warehouse.connection import (
    SCRATCH,
    Connection,
    is_limited,
    query,
    root_of,
    rows,
    stream,
    vectors,
)
from axes.warehouse.errors import ModelError, QueryError, RootError
from axes.warehouse.names import TOKEN_POOLINGS
from axes.warehouse.storage.files import make_folder
from axes.warehouse.storage.layout import partition_folder
from axes.warehouse.storage.store import Store, store_at
from axes.warehouse.tables.schemas import TABLES

# Row groups decoded at once: one column is one thread's work, and a group takes some megabytes.
_DECODERS = 3


def layer_batches(
    connection: Connection,
    model: str,
    keys: Mapping[str, str],
    layer: int,
    table: str = "activations",
    *,
    prompt_ids: pa.Array | None = None,
) -> Iterator[tuple[pa.Array, np.ndarray]]:
    """Prompt ids and float32 `[row, d_model]` of the rows of `model` at `layer` with these `keys`.

    With `prompt_ids`, files that hold activations of none of these are left out. Of `prompt_tokens`
    each token is a row; those of a prompt come one after the other.

    Raises `FileNotFoundError` where a compaction came between listing and reading, in which case it
    can be called again, and `QueryError` for a file that is broken.
    """
    if is_limited(connection):
        yield from _by_sql(connection, model, keys, layer, table)
    else:
        yield from _by_arrow(connection, model, keys, layer, table, prompt_ids)


def stored_layers(
    connection: Connection, model: str, keys: Mapping[str, str], prompt_set: str
) -> dict[int, int]:
    """The layers at which `model` has vectors with these `keys` of a prompt set, and how many."""
    conditions = " and ".join(f"{name} = ${name}" for name in keys)
    layers = rows(
        connection,
        f"""
        select unnest(layers) as layer, count(*) as count
        from v_stored
        where
            model = $model and {conditions}
            and prompt_id in (select prompt_id from prompts where prompt_set = $prompt_set)
        group by layer
        order by layer
        """,
        {**keys, "model": model, "prompt_set": prompt_set},
    )
    return {row["layer"]: row["count"] for row in layers}


def _by_sql(
    connection: Connection, model: str, keys: Mapping[str, str], layer: int, table: str
) -> Iterator[tuple[pa.Array, np.ndarray]]:
    conditions = " and ".join(f"{name} = ${name}" for name in keys)
    batches = stream(
        connection,
        f"""
        select prompt_id, vector
        from {table}
        where model = $model and layer = $layer and {conditions}
        {"order by prompt_id, position" if table == "prompt_tokens" else ""}
        """,
        {**keys, "model": model, "layer": layer},
    )
    for batch in batches:
        yield batch.column("prompt_id"), vectors(batch.column("vector"))


def _by_arrow(
    connection: Connection,
    model: str,
    keys: Mapping[str, str],
    layer: int,
    table: str,
    prompt_ids: pa.Array | None,
) -> Iterator[tuple[pa.Array, np.ndarray]]:
    values: dict[str, str | int] = {**keys, "layer": layer}
    try:
        store = store_at(root_of(connection))
        files = _files(connection, store, model, keys, layer, table, prompt_ids)
        for group in _decoded(_row_groups(store, files, values)):
            if len(group):
                yield group.column("prompt_id").combine_chunks(), vectors(group.column("vector"))
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException) as error:
        raise QueryError(f"{' '.join(str(error).split())}: run `axes warehouse check`") from error


def _row_groups(
    store: Store, paths: Sequence[Path], values: Mapping[str, str | int]
) -> Iterator[Callable[[], pa.Table]]:
    """A call that decodes each row group in which a row may have these key `values`."""
    for path in paths:
        metadata = pq.read_metadata(store.source(path))
        for number in range(metadata.num_row_groups):
            mixed = _mixed_columns(metadata.row_group(number), values)
            if mixed is not None:
                filters = {name: values[name] for name in mixed}
                yield partial(_decode, store, path, metadata, number, filters)


def _mixed_columns(group: pq.RowGroupMetaData, values: Mapping[str, str | int]) -> list[str] | None:
    """The columns with other values next to this one; None if a column cannot hold it."""
    columns = [group.column(index) for index in range(group.num_columns)]
    statistics = {column.path_in_schema: column.statistics for column in columns}
    mixed = []
    for name, value in values.items():
        limits = statistics.get(name)
        if limits is None or not limits.has_min_max:
            mixed.append(name)
        elif not limits.min <= value <= limits.max:
            return None
        elif limits.min != limits.max or limits.null_count:
            mixed.append(name)
    return mixed


def _decode(
    store: Store,
    path: Path,
    metadata: pq.FileMetaData,
    number: int,
    mixed: Mapping[str, str | int],
) -> pa.Table:
    """A row group's prompt ids and vectors, of the rows with the values of `mixed`.

    Ingest writes a row group for each layer and key: as a rule there is nothing to filter, and
    a filter would copy every vector.
    """
    with pq.ParquetFile(store.source(path), metadata=metadata, pre_buffer=False) as file:
        table = file.read_row_group(number, columns=["prompt_id", "vector", *mixed])
    if mixed:
        table = table.filter(reduce(and_, (pc.field(name) == mixed[name] for name in mixed)))
    return table


def _decoded(tasks: Iterator[Callable[[], pa.Table]]) -> Iterator[pa.Table]:
    """The results in order, a few decoded ahead of the reader on other threads."""
    with ThreadPoolExecutor(_DECODERS) as pool:
        pending = deque(pool.submit(task) for task in islice(tasks, _DECODERS))
        while pending:
            table = pending.popleft().result()
            pending.extend(pool.submit(task) for task in islice(tasks, 1))
            yield table


def _files(
    connection: Connection,
    store: Store,
    model: str,
    keys: Mapping[str, str],
    layer: int,
    table: str,
    prompt_ids: pa.Array | None,
) -> list[Path]:
    """The files with rows of the layer, and those that came after the index was read."""
    folder = partition_folder(store.root, TABLES[table], model)
    if table != "activations":  # Of the others there is no index of keys.
        return store.files(folder)
    held = _held_layers(connection, model, keys, prompt_ids)
    return [path for path in store.files(folder) if layer in held.get(path.name, {layer})]


# A file's name is made of its rows' keys, so an answer holds; later files are in none and are read.
_KNOWN: WeakKeyDictionary[Connection, dict[Any, dict[str, set[int]]]] = WeakKeyDictionary()
_MOST_KNOWN = 8


def _held_layers(
    connection: Connection, model: str, keys: Mapping[str, str], prompt_ids: pa.Array | None
) -> dict[str, set[int]]:
    """Each file of the index, and at which layers it holds rows with these `keys`."""
    asked = (model, *keys.items(), None if prompt_ids is None else _digest(prompt_ids))
    known = _KNOWN.setdefault(connection, {})
    if (answer := known.get(asked)) is not None:
        return answer
    conditions = " and ".join(f"{name} = ${name}" for name in keys)
    cursor = connection.cursor()
    if prompt_ids is not None:
        cursor.register("wanted_prompts", pa.table({"prompt_id": prompt_ids}))
        conditions += " and prompt_id in (select prompt_id from wanted_prompts)"
    files = query(
        cursor,
        f"""
        select file, list(distinct layers) filter (where {conditions}) as held
        from v_stored
        where model = $model
        group by file
        """,
        {**keys, "model": model},
    ).to_pylist()
    answer = {row["file"]: set(chain.from_iterable(row["held"] or ())) for row in files}
    if len(known) >= _MOST_KNOWN:
        known.clear()
    known[asked] = answer
    return answer


def _digest(ids: pa.Array) -> bytes:
    """The same for the same ids."""
    digest = sha256()
    for buffer in ids.buffers():
        digest.update(buffer or b"")
    return digest.digest()


@dataclass(frozen=True)
class StoredRows:
    """A float32 `[rows, d]` matrix in a file; `index` says which of the file's rows, None all."""

    file: IO[bytes]
    shape: tuple[int, int]
    index: np.ndarray | None = None

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        start, stop, _ = rows.indices(len(self))
        block = np.empty((max(stop - start, 0), self.shape[1]), dtype=np.float32)
        if self.index is None:
            _read(self.file, block, start * self._row_bytes)
        else:
            for row, place in zip(block, self.index[start:stop].tolist(), strict=True):
                _read(self.file, row, place * self._row_bytes)
        return block

    def __setitem__(self, places: np.ndarray, block: np.ndarray) -> None:
        order = np.argsort(places)
        rows = np.ascontiguousarray(block[order], dtype=np.float32)
        places = places[order]
        # `places` is sorted, so a step other than 1 ends a run of neighbours. A run is written in
        # one call: rows that were ingested in order take a single one.
        for run in np.split(np.arange(len(places)), np.flatnonzero(np.diff(places) != 1) + 1):
            if len(run):
                _write(self.file, rows[run], int(places[run[0]]) * self._row_bytes)

    def take(self, index: np.ndarray) -> StoredRows:
        """The rows of `index`, in its order, without copying them."""
        chosen = index if self.index is None else self.index[index]
        return StoredRows(self.file, (len(index), self.shape[1]), chosen)

    @property
    def _row_bytes(self) -> int:
        return self.shape[1] * 4


Rows = np.ndarray | StoredRows


def allocate(connection: Connection, row_count: int, width: int) -> Rows:
    """Room for a float32 matrix: in memory if it is small, else in a file.

    Small is a share of `connect`'s memory limit, since a study holds a few dozen matrices.
    """
    share = connection.execute("select getvariable('matrix_bytes')").fetchall()[0][0]
    if row_count * width * 4 <= share:
        return np.empty((row_count, width), dtype=np.float32)
    home = store_at(root_of(connection)).home
    folder = make_folder(home, home / SCRATCH)
    return StoredRows(tempfile.TemporaryFile(dir=folder), (row_count, width))


def _write(file: IO[bytes], block: np.ndarray, offset: int) -> None:
    view = block.data.cast("B")
    try:
        while len(view):
            count = os.pwrite(file.fileno(), view, offset)
            view, offset = view[count:], offset + count
    except OSError as error:
        raise RootError(
            f"a matrix larger than memory finds no room on the disk: {error}"
        ) from error


def _read(file: IO[bytes], into: np.ndarray, offset: int) -> None:
    view = into.data.cast("B") if into.size else memoryview(b"")
    while len(view):
        count = os.preadv(file.fileno(), [view], offset)
        if not count:
            raise EOFError(f"{len(view)} bytes of a matrix were never written")
        view, offset = view[count:], offset + count


# Tokens of a rolling mean where the name of the pooling gives no other number.
WINDOW = 10


@dataclass(frozen=True)
class TokenPooling:
    """How the projections of a prompt's tokens become one score: a `pooling` without stored rows.

    `tokens_mean`; `tokens_max`, the MultiMax of arXiv 2601.11516 with one head;
    `tokens_rolling_max@W`, the largest mean of W tokens in a row, its max of rolling means (all
    tokens of a prompt with fewer); `tokens_attention@AXIS`, weighted by a softmax over the tokens
    of their projection on a stored axis, the query.
    """

    kind: str
    argument: str = ""

    @classmethod
    def find(cls, name: str) -> TokenPooling | None:
        """The token pooling of a name; None for the name of a pooling with stored vectors.

        Raises `ModelError` for an argument that the pooling does not take.

        >>> TokenPooling.find("tokens_rolling_max").name, TokenPooling.find("last5_mean")
        ('tokens_rolling_max@10', None)
        """
        kind, _, argument = name.partition("@")
        if kind not in TOKEN_POOLINGS:
            return None
        if kind == "tokens_rolling_max":
            argument = argument or str(WINDOW)
            if not argument.isdecimal() or int(argument) < 1:
                raise ModelError(f"{name}: give the number of tokens, as in {kind}@{WINDOW}")
        elif argument and kind != "tokens_attention":
            raise ModelError(f"{name}: {kind} takes nothing behind an @")
        return cls(kind, argument)

    @property
    def name(self) -> str:
        return f"{self.kind}@{self.argument}" if self.argument else self.kind

    @property
    def is_linear(self) -> bool:
        """Whether a prompt's score is the projection of a weighted mean of its tokens."""
        return self.kind in ("tokens_mean", "tokens_attention")

    def score(self, projections: Float[np.ndarray, "token ..."]) -> Float[np.ndarray, "*axis"]:
        """Of one prompt, or of a completion so far, on each axis; not for `tokens_attention`.

        >>> TokenPooling("tokens_rolling_max", "2").score(np.array([1.0, 2.0, 4.0, 0.0]))
        np.float64(3.0)
        """
        if self.kind == "tokens_max":
            return projections.max(axis=0)
        if self.kind == "tokens_rolling_max":
            window = min(int(self.argument), len(projections))
            sums = np.concatenate([np.zeros_like(projections[:1]), projections.cumsum(axis=0)])
            return ((sums[window:] - sums[:-window]) / window).max(axis=0)
        return projections.mean(axis=0)
