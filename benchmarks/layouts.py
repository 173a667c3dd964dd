"""How a column of vectors may lie in Parquet: the table of docs/decisions/0005, printed to stderr.

The figure is what is kept, the list as `axes.warehouse.writer` encodes it, over the best
alternative that is still a list of floats to every Parquet tool.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from axes.warehouse.writer import vector_array
from benchmarks.run import Figure
from benchmarks.warehouse import ROUNDS, seconds

COUNT, WIDTH = 60_000, 1024
_PLAIN: dict[str, Any] = {"compression": "none", "use_dictionary": False}
_SPLIT = {"vector.list.element": "BYTE_STREAM_SPLIT"}
# Name -> rows of a row group, options of the Parquet writer.
LAYOUTS: dict[str, tuple[int, dict[str, Any]]] = {
    "list, row groups of 4,096": (4096, _PLAIN),
    "list, row groups of 700": (700, _PLAIN),
    "list, one row group": (COUNT, _PLAIN),
    "list, pages of 8 MB": (4096, {**_PLAIN, "data_page_size": 8 << 20}),
    "list, data page version 2": (4096, {**_PLAIN, "data_page_version": "2.0"}),
    "list, byte stream split and zstd": (
        4096,
        {"compression": "zstd", "use_dictionary": False, "column_encoding": _SPLIT},
    ),
    "list, lz4": (4096, {"compression": "lz4", "use_dictionary": False}),
    "fixed-size list": (4096, _PLAIN),
}


def measure() -> list[Figure]:
    """Cold reads by pyarrow and by DuckDB of every layout, in alternating rounds."""
    random = np.random.default_rng(0)
    matrix = random.standard_normal((COUNT, WIDTH), dtype=np.float32)
    axis = random.standard_normal(WIDTH).tolist()
    read: dict[str, list[float]] = {name: [] for name in LAYOUTS}
    dotted: dict[str, list[float]] = {name: [] for name in LAYOUTS}
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: Path(folder) / f"{index}.parquet" for index, name in enumerate(LAYOUTS)}
        for name, (rows, options) in LAYOUTS.items():
            pq.write_table(_table(matrix, name), paths[name], row_group_size=rows, **options)
        for _ in range(ROUNDS):
            for name, path in paths.items():
                read[name].append(seconds(lambda path=path: _to_numpy(path), cold=[path]))
                dotted[name].append(seconds(lambda path=path: _dot(path, axis), cold=[path]))
        sizes = {name: path.stat().st_size >> 20 for name, path in paths.items()}
    for name in LAYOUTS:
        arrow, sql = statistics.median(read[name]), statistics.median(dotted[name])
        print(f"| {name} | {sizes[name]} | {arrow:.2f} | {sql:.2f} |", file=sys.stderr)
    kept, *others = (statistics.median(dotted[name]) for name in LAYOUTS)
    return [
        Figure(
            "dot in SQL: the layout kept / the best other list", kept / min(others), 1.2, "lower"
        )
    ]


def _table(matrix: np.ndarray, name: str) -> pa.Table:
    vectors = vector_array(matrix)
    if name.startswith("fixed"):
        element = pa.field("element", pa.float32(), nullable=False)
        kind = pa.list_(element, WIDTH)
        vectors = pa.FixedSizeListArray.from_arrays(vectors.flatten(), type=kind)
    return pa.table({"vector": vectors})


def _to_numpy(path: Path) -> np.ndarray:
    column = pq.read_table(path)["vector"].combine_chunks()
    return column.flatten().to_numpy(zero_copy_only=False).reshape(-1, WIDTH)


def _dot(path: Path, axis: list[float]) -> None:
    statement = "select sum(list_inner_product(vector::double[], ?::double[])) from read_parquet(?)"
    connection = duckdb.connect()
    connection.execute("set enable_progress_bar = false")
    connection.execute(statement, [axis, str(path)]).fetchall()
