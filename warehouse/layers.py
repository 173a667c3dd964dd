"""The vectors of one layer straight from Parquet, in batches that need not fit in memory together.

SQL reads the same rows; this way they do not pass through DuckDB's lists, which doubles the time.
The index of keys names the files that hold the layer, statistics the row groups in them. Under a
memory limit DuckDB reads all the same: it keeps to what it is given, and Arrow's scanner does not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import reduce
from operator import and_
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

from warehouse.connection import Connection, is_limited, query, root_of, stream, vectors
from warehouse.errors import QueryError
from warehouse.layout import partition_folder
from warehouse.schemas import TABLES

_TABLE = TABLES["activations"]
# Batches and files that are decoded ahead of the reader: enough for the cores, little memory.
_BATCH_ROWS, _BATCHES_AHEAD, _FILES_AHEAD = 2048, 2, 2


def layer_batches(
    connection: Connection, model: str, keys: Mapping[str, str], layer: int
) -> Iterator[tuple[pa.Array, np.ndarray]]:
    """Prompt ids and float32 `[row, d_model]` of the rows of `model` at `layer` with these `keys`.

    Raises `FileNotFoundError` where a compaction came between listing and reading, in which case it
    can be called again, and `QueryError` for a file that is broken.
    """
    if is_limited(connection):
        yield from _by_sql(connection, model, keys, layer)
    else:
        yield from _by_arrow(connection, model, keys, layer)


def _by_sql(
    connection: Connection, model: str, keys: Mapping[str, str], layer: int
) -> Iterator[tuple[pa.Array, np.ndarray]]:
    conditions = " and ".join(f"{name} = ${name}" for name in keys)
    batches = stream(
        connection,
        f"""
        select prompt_id, vector
        from activations
        where model = $model and layer = $layer and {conditions}
        """,
        {**keys, "model": model, "layer": layer},
    )
    for batch in batches:
        yield batch.column("prompt_id"), vectors(batch.column("vector"))


def _by_arrow(
    connection: Connection, model: str, keys: Mapping[str, str], layer: int
) -> Iterator[tuple[pa.Array, np.ndarray]]:
    paths = _files(connection, model, keys, layer)
    if not paths:
        return
    wanted = {**keys, "layer": layer}
    scanner = ds.dataset(paths, schema=_TABLE.file_schema, format="parquet").scanner(
        columns=["prompt_id", "vector"],
        filter=reduce(and_, (ds.field(name) == value for name, value in wanted.items())),
        batch_size=_BATCH_ROWS,
        batch_readahead=_BATCHES_AHEAD,
        fragment_readahead=_FILES_AHEAD,
        # Else a whole file is kept in memory for as long as it is read.
        fragment_scan_options=ds.ParquetFragmentScanOptions(pre_buffer=False),
    )
    try:
        for batch in scanner.to_batches():
            if len(batch):
                yield batch.column("prompt_id"), vectors(batch.column("vector"))
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException) as error:
        raise QueryError(f"{' '.join(str(error).split())}: run `axes warehouse check`") from error


def _files(connection: Connection, model: str, keys: Mapping[str, str], layer: int) -> list[Path]:
    """The files with rows of the layer, and those that came after the index was read."""
    conditions = " and ".join(f"{name} = ${name}" for name in keys)
    found = query(
        connection,
        f"""
        select file, bool_or({conditions} and list_contains(layers, $layer)) as is_wanted
        from v_stored
        where model = $model
        group by file
        """,
        {**keys, "layer": layer, "model": model},
    ).to_pylist()
    is_wanted = {row["file"]: row["is_wanted"] for row in found}
    folder = partition_folder(root_of(connection), _TABLE, model)
    return [path for path in sorted(folder.glob("*.parquet")) if is_wanted.get(path.name, True)]
