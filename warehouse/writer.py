"""Rows into Parquet, so that a reader never sees half a file.

A file is written in ROOT/.tmp, which no reader looks into, flushed to the disk and renamed; the
ledger says what was written. Names are content keys: a job that writes the same thing again
replaces the file with itself.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from axes.warehouse.errors import NonFiniteError, RootError
from axes.warehouse.names import STORE_DTYPES
from axes.warehouse.storage.files import TEMPORARY, make_folder
from axes.warehouse.storage.layout import EMPTY_FILE, partition_folder, partition_value
from axes.warehouse.storage.ledger import Record, record
from axes.warehouse.storage.roots import RemoteRoot
from axes.warehouse.storage.store import store_at
from axes.warehouse.tables.columns import VECTOR, Table
from axes.warehouse.tables.index import refresh_index
from axes.warehouse.tables.schemas import TABLES

KEY_LENGTH = 16
# Whose rows count only once their completion is in `generations`, which is written last.
WRITTEN_BEFORE_GENERATIONS = ("generation_tokens", "token_projections")

# What a job collects before it commits a file.
CHUNK_BYTES = 48 << 20
# By measurement, see docs/decisions/0005; rows: DuckDB's default.
ROW_GROUP_BYTES = 16 << 20
_ROW_GROUP_ROWS = 122_880
_ONE_VALUE = (str, int, type(None))
_BLOOM = {"ndv": 4096, "fpp": 0.05}


def content_key(*parts: Any) -> str:
    """The first 16 hex digits of the SHA-256 of `parts` as canonical JSON.

    >>> content_key("a", 1) == content_key("a", 1), content_key("a", 1) == content_key("a", 2)
    (True, False)
    """
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]


def vector_array(matrix: np.ndarray) -> pa.ListArray:
    """A float `[rows, d]` matrix as a Parquet vector column (float32, no copy where it is that).

    >>> vector_array(np.eye(2, dtype=np.float32)).to_pylist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    rows, width = matrix.shape
    values = pa.array(np.ascontiguousarray(matrix, dtype=np.float32).reshape(-1))
    offsets = pa.array(np.arange(rows + 1) * width, pa.int32())
    return pa.ListArray.from_arrays(offsets, values, type=VECTOR)


def rows_table(table: str, rows: Sequence[Mapping[str, object]], **columns: Any) -> pa.Table:
    """Row dicts as an Arrow table of the table's schema; `columns` are complete columns to add.

    One that is a text, a number or None has that value in every row.
    """
    schema = TABLES[table].file_schema
    lengths = [len(each) for each in columns.values() if not isinstance(each, _ONE_VALUE)]
    count = lengths[0] if lengths else len(rows)

    def column(field: pa.Field) -> Any:
        if field.name not in columns:
            return [row.get(field.name) for row in rows]
        values = columns[field.name]
        if isinstance(values, _ONE_VALUE):
            return pa.repeat(pa.scalar(values, field.type), count)
        return values

    return pa.table([column(field) for field in schema], schema=schema)


def data_file(root: Path, table: str, name: str, partition: str | None = None) -> Path:
    """The path that `write_rows` gives to the file called `name`.

    Raises `RootError` for a name that leads elsewhere: ids are read from warehouses of others.
    """
    if "/" in name or "\\" in name or "\0" in name or name.startswith("."):
        raise RootError(f"{name!r} cannot be the name of a file of {table}: check this warehouse")
    return partition_folder(root, TABLES[table], partition) / f"{name}.parquet"


def write_rows(
    root: Path,
    table: str,
    row_groups: pa.Table | Iterable[pa.Table],
    *,
    name: str,
    partition: str | None = None,
) -> Path:
    """Write one file of `table` atomically; each Arrow table becomes (at least) one row group.

    Raises `NonFiniteError` for a vector with NaN or infinity and `RootError` where the disk
    refuses; no file appears in either case.
    """
    (path,) = commit_rows(
        root, [send_rows(root, table, row_groups, name=name, partition=partition)]
    )
    return path


class SentFile(NamedTuple):
    """A file of a table that is written and not committed, so that no reader sees it.

    Its bytes lie at `place`, for whichever machine commits them under the name `path`.
    """

    table: str
    path: Path
    place: Path
    record: Record


def send_rows(
    root: Path,
    table: str,
    row_groups: pa.Table | Iterable[pa.Table],
    *,
    name: str,
    partition: str | None = None,
) -> SentFile:
    """The first half of `write_rows`, which another process than the one that commits may do."""
    groups = [row_groups] if isinstance(row_groups, pa.Table) else row_groups
    path, store = data_file(root, table, name, partition), store_at(root)
    temporary = place = store.home / TEMPORARY / f"{name}.{uuid.uuid4().hex[:8]}.tmp"
    is_sent = False
    try:
        make_folder(store.home, temporary.parent)
        written = write_parquet(temporary, TABLES[table], groups)
        place = store.send(path, temporary, written)
        is_sent = True
    except OSError as error:
        raise RootError(f"cannot write {path}: {error}") from error
    finally:
        if not is_sent or place != temporary:
            _discard(temporary)
    return SentFile(table, path, place, written)


def commit_rows(root: Path, files: Sequence[SentFile]) -> list[Path]:
    """The second half of `write_rows`, for several files: table by table, in their order."""
    store, committed = store_at(root), []
    try:
        for table in dict.fromkeys(file.table for file in files):
            own = [file for file in files if file.table == table]
            with store.turn(table):
                committed += store.commit(
                    table, {file.path: (file.place, file.record) for file in own}
                )
                if table == "activations":
                    for folder in dict.fromkeys(file.path.parent for file in own):
                        refresh_index(root, partition_value(folder))
    except OSError as error:
        raise RootError(f"cannot write {files[0].path}: {error}") from error
    finally:
        for file in files:
            if not isinstance(file.place, RemoteRoot):
                _discard(file.place)  # A committed one has left it.
    return committed


def _discard(temporary: Path) -> None:
    with contextlib.suppress(OSError):
        temporary.unlink()


def write_parquet(path: Path, table: Table, groups: Iterable[pa.Table]) -> Record:
    """Write one file as every file of `table` is encoded, flushed to the disk; not atomic."""
    rows, runs = 0, Counter[str]()
    groups = iter(groups)
    first = next(groups, table.file_schema.empty_table())
    with path.open("xb") as file:
        encoding = _encoding(table, is_rounded=_is_rounded(first))
        with pq.ParquetWriter(file, table.file_schema, **encoding) as writer:
            for group in itertools.chain([first], groups):
                _require_finite(table, group)
                writer.write_table(group, row_group_size=_row_group_rows(table, group))
                rows += len(group)
                runs += _run_counts(group)
        file.flush()
        os.fsync(file.fileno())
    return record(path, rows, runs)


def read_record(path: Path) -> Record:
    """The ledger's record of a stored file, from the file alone."""
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        runs = _run_counts(file.read(columns=["run_id"]))
        return record(path, file.metadata.num_rows, runs)


def _run_counts(group: pa.Table) -> Counter[str]:
    counted = group.column("run_id").value_counts().to_pylist()
    return Counter({row["values"]: row["counts"] for row in counted})


def remove_uncommitted(root: Path, table: str, committed_by: str, partition: str) -> list[Path]:
    """Delete the files of `table` none of whose rows has its row in `committed_by`.

    For rows that are written before the rows that make them count: a job that was killed between
    the two left the former. The caller holds the lock under which both are written. By the
    key and not by file names, which compaction changes.
    """
    (key,) = TABLES[committed_by].key
    store = store_at(root)
    committed: set[str] = set()
    # Under both locks a compaction changes no names meanwhile.
    with store.turn(committed_by), store.turn(table):
        store.refresh(committed_by, table)
        for path in store.files(partition_folder(root, TABLES[committed_by], partition)):
            committed |= column_values(store.source(path), key)
        uncommitted = [
            path
            for path in store.files(partition_folder(root, TABLES[table], partition))
            if committed.isdisjoint(column_values(store.source(path), key))
        ]
        if uncommitted:
            store.remove(table, uncommitted)
    return uncommitted


def remove_rows(
    root: Path,
    table: str,
    is_removed: Callable[[pa.Table], pa.ChunkedArray],
    *,
    partition: str | None = None,
) -> None:
    """Delete the rows of a partition for which `is_removed` gives true, file by file.

    A file that holds others is replaced by one without them; one that holds no others is deleted.
    """
    store = store_at(root)
    temporary = make_folder(store.home, store.home / TEMPORARY) / f"{uuid.uuid4().hex}.tmp"
    # Under the lock a compaction changes no names meanwhile.
    with store.turn(table):
        store.refresh(table)
        for path in store.files(partition_folder(root, TABLES[table], partition)):
            if path.name == EMPTY_FILE:
                continue
            stored = pq.ParquetFile(store.source(path)).read()
            remaining = stored.filter(pc.invert(is_removed(stored)))
            if not len(remaining):
                store.remove(table, [path])
            elif len(remaining) < len(stored):
                written = write_parquet(temporary, TABLES[table], [remaining])
                store.put(table, path, temporary, written)


def column_values(source: Path | IO[bytes], name: str) -> set[Any]:
    """The distinct values of one column of a file."""
    with pq.ParquetFile(source) as file:
        return set(file.read(columns=[name]).column(name).unique().to_pylist())


def _is_rounded(group: pa.Table) -> bool:
    """Whether the vectors were rounded to 16 bits, by the poolings."""
    poolings = group["pooling"].unique().to_pylist() if "pooling" in group.column_names else []
    return any(name.endswith(STORE_DTYPES) for name in poolings)


def _encoding(table: Table, *, is_rounded: bool) -> dict[str, object]:
    """Vectors are stored plain: float noise neither compresses nor repeats.

    The lower bytes of rounded ones are zeros: split into bytes and compressed they take 36 to 46 %,
    and every reader still finds float32 (docs/decisions/0018).
    """
    vectors = table.vector_columns
    plain = [f"{name}.list.element" for name in vectors]
    leaves = _leaf_names(table.file_schema)
    unpacked = [] if is_rounded else plain
    return {
        "compression": {leaf: "none" if leaf in unpacked else "zstd" for leaf in leaves},
        "column_encoding": {leaf: "BYTE_STREAM_SPLIT" for leaf in plain if is_rounded},
        "use_dictionary": [leaf for leaf in leaves if leaf not in plain],
        "write_statistics": [leaf for leaf in leaves if leaf not in plain],
        # A look-up by prompt passes over row groups that do not hold it; ids are hashes, so their
        # minimum and maximum exclude nothing.
        "bloom_filter_options": {"prompt_id": _BLOOM} if vectors and "prompt_id" in leaves else {},
        "write_page_checksum": True,
    }


def _row_group_rows(table: Table, group: pa.Table) -> int:
    """Rows of a row group: a reader holds the vectors of one in memory for each of its threads."""
    vector_bytes = max((group.column(name).nbytes for name in table.vector_columns), default=0)
    if not len(group) or not vector_bytes:
        return _ROW_GROUP_ROWS
    return min(max(ROW_GROUP_BYTES * len(group) // vector_bytes, 1), _ROW_GROUP_ROWS)


def _leaf_names(schema: pa.Schema) -> list[str]:
    names = []
    for field in schema:
        if not pa.types.is_list(field.type):
            names.append(field.name)
        elif pa.types.is_struct(field.type.value_type):
            names += [f"{field.name}.list.element.{inner.name}" for inner in field.type.value_type]
        else:
            names.append(f"{field.name}.list.element")
    return names


def _require_finite(table: Table, group: pa.Table) -> None:
    for column in table.vector_columns:
        values = group.column(column).combine_chunks().flatten().to_numpy(zero_copy_only=False)
        if not np.isfinite(values).all():
            raise NonFiniteError(
                f"{table.name}.{column} holds NaN or infinity: nothing was written"
            )
