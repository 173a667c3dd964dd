"""Open DuckDB on a root: every table is a view over its Parquet files, `sql/` on top.

Nothing is copied and nothing is locked: the connection is in memory, so any number of readers and
one writer work on a root at once, and a view sees a new file as soon as it is renamed into place.
`scan` gives a table as a polars LazyFrame instead.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

from axes.warehouse.errors import MAX_MESSAGE, QueryError, RootError
from axes.warehouse.names import IMPORTED, did_you_mean, sql_literal
from axes.warehouse.settings import setting
from axes.warehouse.storage.read_only import ReadOnlyFiles, read_only
from axes.warehouse.storage.roots import RemoteRoot, resolved, root_path
from axes.warehouse.storage.store import store_at
from axes.warehouse.syntax import duckdb_message, raised_message, require_query
from axes.warehouse.tables.catalog import execute_file, load_sql, path_pattern
from axes.warehouse.tables.index import INDEX, refresh_index
from axes.warehouse.tables.schemas import TABLES

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from polars.datatypes import DataType

Connection = duckdb.DuckDBPyConnection

# Below the root: what does not fit in memory, while it is needed.
SCRATCH = ".scratch"
# No other code and no variable of Python's in a statement.
_LOCKED = {
    "python_enable_replacements": False,
    "python_scan_all_frames": False,
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "allow_community_extensions": False,
}
# A partition whose value has `..` between two slashes.
_CLIMBS = re.compile(r"%2F\.\.(%2F|$)", re.IGNORECASE)
_IS_LOCKED = "select current_setting('lock_configuration')"
# Rows that DuckDB hands over at a time: one of its vectors.
_BATCH_ROWS = 2048
# What Python takes with the libraries of an analysis, before it has read a row.
_LIBRARIES = 256_000_000
# With fewer for each thread DuckDB cannot decode row groups and join the prompts of a large set.
_MIN_THREAD_BYTES = 96_000_000
# A matrix larger than this share of the memory lies on disk: a study holds a few dozen.
_MATRIX_SHARE = 64


def connect(
    root: Path,
    *,
    memory_limit: int | None = None,
    is_commented: bool = False,
    settings: Mapping[str, object] = {},
) -> Connection:
    """A DuckDB connection with the macros, the tables (`prompts`, ...) and the marts (`v_...`).

    It is locked: it reads the files of the tables and no other, and runs selects only, since a
    warehouse may come from a stranger. `settings` of DuckDB are made first.
    `memory_limit` is in bytes, for the process: matrices above a share of it are held in
    files below the root. Default: what DuckDB takes, most of the machine's.
    `is_commented` adds comments to views, macros and columns: 0.2 s more, 0.6 s in a new process.
    Raises `RootError` where `root` is not a warehouse, or DuckDB cannot read its files.
    """
    connection = _connected(
        root, memory_limit=memory_limit, is_commented=is_commented, is_locked=True
    )
    return _locked(connection, root, settings)


def connect_unlocked(
    root: Path, *, memory_limit: int | None = None, is_commented: bool = False
) -> Connection:
    """As `connect`, for statements that the user typed: any file, and writing, are allowed."""
    return _connected(root, memory_limit=memory_limit, is_commented=is_commented, is_locked=False)


def _connected(
    root: Path, *, memory_limit: int | None, is_commented: bool, is_locked: bool
) -> Connection:
    """A connection with tables, macros and marts, over paths that a locked one may read."""
    connection = _open(root, *TABLES, is_locked=is_locked)
    _limit_memory(connection, root, memory_limit)
    home = _home(root) if refresh_index(root) else None
    with _unreadable(root):
        load_sql(
            connection,
            _location(root) if is_locked else store_at(root).location,
            index=home if home is None or not is_locked else _readable(root, home),
            is_commented=is_commented,
        )
    # From the user's settings, never from the root: a warehouse may be a stranger's.
    if views := setting("views"):
        for path in sorted(Path(views).expanduser().glob("*.sql")):
            execute_file(connection, path, path.read_text())
    return connection


def connect_tables(root: Path, *tables: str) -> Connection:
    """A connection with these tables and nothing else, which opens in a few milliseconds.

    For a single look-up in a table. Raises as `connect` does.
    """
    connection = _open(root, *tables, is_locked=True)
    location = path_pattern(_location(root))
    with _unreadable(root):
        for table in tables:
            connection.execute(TABLES[table].staging_view(location))
            connection.execute(f"create view {table} as select * from stg_{table}")
    return _locked(connection, root, {})


def scan(table: str, root: Path) -> pl.LazyFrame:
    """A LazyFrame over a table's Parquet files, its columns in the order of the schema.

    The partition is text whatever its values look like, and a filter on it opens that partition's
    files alone. An empty table gives no rows. Raises `QueryError` for an unknown table and
    `RootError` where `root` is not a warehouse.
    """
    import polars as pl

    store_at(root).require()
    if table not in TABLES:
        raise QueryError(
            f"no table {table}{did_you_mean(table, TABLES)}: the tables are {', '.join(TABLES)}"
        )
    definition = TABLES[table]
    paths, options = store_at(root).scanned(definition)
    if not paths:
        return pl.LazyFrame(pl.from_arrow(definition.schema.empty_table()))
    partition: dict[str, type[DataType]] | None = (
        {definition.partition: pl.String} if definition.partition else None
    )
    frame = pl.scan_parquet(
        paths,
        storage_options=options,
        hive_partitioning=partition is not None,
        hive_schema=partition,
    )
    return frame.select(definition.schema.names)


def query(
    connection: Connection, sql: str, parameters: Any = None, *, row_limit: int | None = None
) -> pa.Table:
    """Run one statement and return its rows as an Arrow table; `QueryError` in DuckDB's words.

    With a `row_limit` no more than that many first rows are computed. A repeated column
    name gets a number: `a`, `a_1`. A statement whose files were replaced by a compaction between
    its listing and its reading is run again.
    """
    try:
        table = _result(connection, sql, parameters, row_limit)
    except (duckdb.BinderException, duckdb.CatalogException) as error:
        # Nothing has run yet; `execute` draws the excerpt of the statement that `sql` leaves out.
        try:
            connection.execute(sql, parameters)
        except duckdb.Error as drawn:
            raise _query_error(drawn) from drawn
        raise _query_error(error) from error
    except duckdb.Error as error:
        raise _query_error(error) from error
    return table.rename_columns(distinct_names(table.column_names))


def split_statements(sql: str) -> list[duckdb.Statement]:
    """The statements of a text that are separated by `;`; raises `QueryError`."""
    try:
        return duckdb.extract_statements(sql)
    except duckdb.Error as error:
        raise _query_error(error) from error


def _query_error(error: duckdb.Error) -> QueryError:
    """DuckDB's message on one line, with its excerpt of the statement as a note."""
    _, _, excerpt = str(error)[: 2 * MAX_MESSAGE].partition("\n\nLINE ")
    raised = QueryError(duckdb_message(error))
    if excerpt:
        raised.add_note(f"LINE {excerpt}")
    return raised


def _result(connection: Connection, sql: str, parameters: Any, row_limit: int | None) -> pa.Table:
    for is_last in (False, False, True):
        try:
            relation = _relation(connection, sql, parameters)
            if relation is not None and row_limit is not None:
                relation = relation.limit(row_limit)
            return pa.table({}) if relation is None else relation.to_arrow_table()
        except duckdb.Error as error:
            if is_last or "No such file" not in str(error):
                raise
    raise AssertionError("the last attempt returns or raises")


def _relation(connection: Connection, sql: str, parameters: Any) -> duckdb.DuckDBPyRelation:
    """The result of a statement: of a query, or on an unlocked connection of any other kind."""
    types = {each.type for each in connection.extract_statements(sql)}
    if types == {duckdb.StatementType.SELECT}:
        require_query(sql)
    # Asked last: it is a tenth of the time of a small query.
    elif types and connection.execute(_IS_LOCKED).fetchall() == [(True,)]:
        raise QueryError("this connection runs select statements and nothing else")
    return connection.sql(sql, params=parameters)


def distinct_names(names: list[str]) -> list[str]:
    """The names, a repeated one (`select *` over a join) with the first free number behind it."""
    # A dict keeps the order. The last number of each name is kept: thousands of equal names, as a
    # hostile statement can have, take linear time.
    distinct: dict[str, None] = {}
    last: dict[str, int] = {}
    for name in names:
        free = name
        while free in distinct:
            last[name] = last.get(name, 0) + 1
            free = f"{name}_{last[name]}"
        distinct[free] = None
    return list(distinct)


def stream(connection: Connection, sql: str, parameters: Any = None) -> Iterator[pa.RecordBatch]:
    """Run one statement and yield its rows in batches, which need not fit in memory together."""
    try:
        yield from _relation(connection, sql, parameters).to_arrow_reader(_BATCH_ROWS)
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        # Arrow hands DuckDB's errors on as its own; out of memory comes as an OSError.
        raise QueryError(duckdb_message(error)) from error


def rows(connection: Connection, sql: str, parameters: Any = None) -> list[dict[str, Any]]:
    """Run one statement and return its rows as dicts."""
    return query(connection, sql, parameters).to_pylist()


def vectors(column: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """A queried vector column as a float32 `[rows, d]` matrix; all vectors must be of one width."""
    import numpy as np

    lists = column
    if isinstance(column, pa.ChunkedArray):  # Combining copies a single chunk too.
        lists = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    if not len(lists):
        return np.empty((0, 0), dtype=np.float32)
    widths = np.diff(lists.offsets.to_numpy())
    if (widths != widths[0]).any():
        raise QueryError(f"vectors of {widths.min()} and of {widths.max()} numbers in one result")
    values = lists.flatten().to_numpy(zero_copy_only=False)
    return values.astype(np.float32, copy=False).reshape(len(lists), widths[0])


def root_of(connection: Connection) -> Path:
    """The root that the connection was opened on."""
    return root_path(connection.execute("select getvariable('root')").fetchall()[0][0])


def is_limited(connection: Connection) -> bool:
    """Whether the connection was opened with a memory limit."""
    return bool(connection.execute("select getvariable('is_limited')").fetchall()[0][0])


def is_imported(connection: Connection, model: str) -> bool:
    """Whether all stored versions of a model (a name, or NAME@ID) have imported vectors alone."""
    name, _, prefix = model.partition("@")
    sources = rows(
        connection,
        "select source from models where model = ? and starts_with(model_id, ?)",
        [name, prefix],
    )
    return bool(sources) and all(row["source"].partition(":")[0] == IMPORTED for row in sources)


def _home(root: Path) -> str:
    """The folder of the index, without links."""
    return store_at(root).home.resolve().as_posix()


def _location(root: Path) -> str:
    """Where a locked connection finds the tables: in a file system that only reads."""
    location = store_at(root).location
    return location if isinstance(root, RemoteRoot) else _readable(root, location)


def _readable(root: Path, path: str) -> str:
    """A path of this disk as a locked connection is given it.

    DuckDB refuses to open `a/../b`, written in percent as the value of a partition too, in any file
    system but its own: a root with such a value is read through that.
    """
    store = store_at(root)
    tables = [] if isinstance(root, RemoteRoot) else list(TABLES.values())
    folders = (folder.name for table in tables for folder in store.partitions(table))
    return path if any(map(_CLIMBS.search, folders)) else read_only(path)


def _open(root: Path, *tables: str, is_locked: bool) -> Connection:
    store = store_at(root)
    store.require()
    store.refresh(*tables)
    connection = duckdb.connect()
    store.attach(connection)
    if is_locked:
        connection.register_filesystem(ReadOnlyFiles(_home(root)))
        if not isinstance(root, RemoteRoot):
            # Pages of local files are in the system's cache already.
            connection.execute("set enable_external_file_cache = false")
    ((has_bar,),) = connection.execute("select current_setting('enable_progress_bar')").fetchall()
    if has_bar:  # In a notebook without ipywidgets it is off, and turning it off is an error.
        connection.execute("set enable_progress_bar = false")
    # Footers are kept until a file changes: a look-up reads little else.
    connection.execute("set parquet_metadata_cache = true")
    return connection


def _locked(connection: Connection, root: Path, settings: Mapping[str, object]) -> Connection:
    """The connection, which from now on reads the folders of the tables and nothing else."""
    # DuckDB compares with the pattern of a view, where the root may have escaped characters.
    places = [f"{_location(root)}/{name}" for name in TABLES]
    places.append(f"{_readable(root, _home(root))}/{INDEX}")
    folders = sorted({*places, *map(glob.escape, places)})
    for name, value in {**settings, **_LOCKED, "allowed_directories": folders}.items():
        connection.execute(f"set {name} = $1", [value])
    connection.execute("set enable_external_access = false")
    connection.execute("set lock_configuration = true")
    return connection


@contextmanager
def _unreadable(root: Path) -> Iterator[None]:
    try:
        yield
    except duckdb.Error as error:
        raise RootError(
            f"{root} cannot be read: {raised_message(error).splitlines()[0]}"
        ) from error


def _limit_memory(connection: Connection, root: Path, memory_limit: int | None) -> None:
    """Divide the process's memory: Python and its libraries, DuckDB, and matrices (layers.py)."""
    store = store_at(root)
    connection.execute(f"set variable root = {sql_literal(str(resolved(root)))}")
    scratch = sql_literal(str(store.home.resolve() / SCRATCH))
    connection.execute(f"set temp_directory = {scratch}")
    total = memory_limit
    if total is None:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    else:
        share = max((total - _LIBRARIES) // 4, _MIN_THREAD_BYTES)
        threads = min(share // _MIN_THREAD_BYTES, os.cpu_count() or 1)
        connection.execute(f"set memory_limit = '{share}B'")
        connection.execute(f"set threads = {threads}")
        # Rows in the order of the files would have to wait for each other in memory.
        connection.execute("set preserve_insertion_order = false")
    connection.execute(f"set variable is_limited = {memory_limit is not None}")
    connection.execute(f"set variable matrix_bytes = {total // _MATRIX_SHARE}")
