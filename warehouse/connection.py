"""Open DuckDB on a root: every table is a view over its Parquet files, `sql/` on top.

Nothing is copied and nothing is locked: the connection is in memory, so any number of readers and
one writer work on a root at once, and a view sees a new file as soon as it is renamed into place.
"""

from __future__ import annotations

import glob
import graphlib
import re
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from warehouse.errors import QueryError, RootError
from warehouse.layout import require_root
from warehouse.schemas import TABLES

SQL_FOLDER = Path(__file__).resolve().parent.parent / "sql"

Connection = duckdb.DuckDBPyConnection


def connect(root: Path) -> Connection:
    """A DuckDB connection with the macros, the tables (`prompts`, ...) and the marts (`v_...`).

    Raises `RootError` where `root` is not a warehouse, or DuckDB cannot read its files.
    """
    require_root(root)
    connection = duckdb.connect()
    connection.execute("set enable_progress_bar = false")
    try:
        for statement in _statements(root):
            connection.execute(statement)
    except duckdb.Error as error:
        raise RootError(f"{root} cannot be read: {str(error).splitlines()[0]}") from error
    return connection


def query(connection: Connection, sql: str, parameters: Any = None) -> pa.Table:
    """Run one statement and return its rows as an Arrow table; `QueryError` in DuckDB's words.

    A column name that is there already gets a number: `a`, `a_1`. A statement whose files were
    replaced by a compaction between its listing and its reading is run again.
    """
    try:
        table = _result(connection, sql, parameters)
    except duckdb.Error as error:
        # Without the excerpt of the statement that DuckDB draws below its message.
        message = str(error).partition("\n\nLINE ")[0]
        raise QueryError(" ".join(message.split())) from error
    return table.rename_columns(_distinct(table.column_names))


def _result(connection: Connection, sql: str, parameters: Any) -> pa.Table:
    for is_last in (False, False, True):
        try:
            relation = connection.sql(sql, params=parameters)
            return pa.table({}) if relation is None else relation.to_arrow_table()
        except duckdb.IOException as error:
            if is_last or "No such file" not in str(error):
                raise
    raise AssertionError("the last attempt returns or raises")


def rows(connection: Connection, sql: str, parameters: Any = None) -> list[dict[str, Any]]:
    """Run one statement and return its rows as dicts."""
    return query(connection, sql, parameters).to_pylist()


def vectors(column: pa.ChunkedArray) -> np.ndarray:
    """A queried vector column as a float32 `[rows, d]` matrix; all vectors must be of one width."""
    lists = column.combine_chunks()
    if not len(lists):
        return np.empty((0, 0), dtype=np.float32)
    widths = np.diff(lists.offsets.to_numpy())
    if (widths != widths[0]).any():
        raise QueryError(f"vectors of {widths.min()} and of {widths.max()} numbers in one result")
    values = lists.flatten().to_numpy(zero_copy_only=False)
    return values.astype(np.float32, copy=False).reshape(len(lists), widths[0])


def sql_files(kind: str) -> dict[str, str]:
    """Name -> text of the files in `sql/<kind>`."""
    return {path.stem: path.read_text() for path in sorted((SQL_FOLDER / kind).glob("*.sql"))}


def _distinct(names: list[str]) -> list[str]:
    """The names, a repeated one (`select *` over a join) with the first free number behind it."""
    distinct: list[str] = []
    for name in names:
        number, free = 0, name
        while free in distinct:
            number += 1
            free = f"{name}_{number}"
        distinct.append(free)
    return distinct


def _statements(root: Path) -> list[str]:
    """Everything that makes a bare connection a warehouse, each view after those it reads."""
    views = {**sql_files("staging"), **sql_files("marts")}
    location = glob.escape(root.resolve().as_posix()).replace("'", "''")
    statements = list(sql_files("macros").values())
    statements += [views[name].replace("${root}", location) for name in _in_order(views)]
    for name, table in TABLES.items():
        statements.append(f"create view {name} as select * from stg_{name}")
        statements.append(f"comment on view {name} is {_quoted(f'One row per {table.grain}.')}")
        statements += [
            f"comment on column {name}.{field.name} is {_quoted(text)}"
            for field, text in zip(table.schema, table.comments, strict=True)
        ]
    return statements


def _quoted(text: str) -> str:
    escaped = text.replace("'", "''")
    return f"'{escaped}'"


def _in_order(views: dict[str, str]) -> list[str]:
    """View names so that each comes after the views named in its text."""
    graph = {
        name: {other for other in re.findall(r"\b(?:stg|v)_\w+", text) if other in views} - {name}
        for name, text in views.items()
    }
    return list(graphlib.TopologicalSorter(graph).static_order())
