"""The objects of `sql/`, the folder, as a connection has them: macros, and views over tables.

DuckDB binds a view when it is made, and a mart binds the views below it again: 0.2 s for all.
A view that is copied is not bound. So the objects are made once, in a DuckDB file of the user's
cache, and each connection copies them from there in 0.01 s (docs/decisions/0016). The file is named
after the bytes of all that it is made from, and has no row and no path in it.
"""

from __future__ import annotations

import contextlib
import functools
import glob
import graphlib
import hashlib
import os
import re
import stat
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import duckdb

from axes.warehouse.errors import ConfigError, QueryError
from axes.warehouse.names import sql_literal
from axes.warehouse.settings import cache_folder
from axes.warehouse.storage.files import replacing
from axes.warehouse.tables.comments import comment_statements, without_comments
from axes.warehouse.tables.schemas import TABLES

SQL_FOLDER = Path(__file__).resolve().parents[2] / "sql"

# v_stored where the index cannot be kept, as on a read-only disk: the same rows, by opening files.
_STORED_WITHOUT_INDEX = """
create view v_stored as
select
    model, model_id, prompt_id, site, pooling, template, null::varchar as file,
    list(distinct layer order by layer) as layers
from stg_activations
group by all
"""

# Comments on the views that each root has of its own; those on all others are copied with them.
_OF_A_ROOT = re.compile(r"comment on \w+ (stg_|v_stored\b)")
# A file that was written longer ago is deleted with the next that is written.
_MAX_AGE_SECONDS = 30 * 24 * 3600.0
_copying = threading.Lock()


def load_sql(
    connection: duckdb.DuckDBPyConnection, root: str, *, index: str | None, is_commented: bool
) -> None:
    """Make a bare connection a warehouse: the objects of `sql/`, each after those it reads.

    Marts are made on empty tables, which then give way to the views over files. Paths stay as they
    are given: a relative root makes relative views. `index` is the folder that `refresh_index` has
    put the index into, None where it could not.
    """
    location = path_pattern(root)
    _create_objects(connection, is_commented)
    stored = sql_files("marts")["v_stored"]
    connection.execute("begin")
    if index is not None:
        connection.execute("drop view v_stored")
        connection.execute(stored.replace("${root}", path_pattern(index)))
    for table in TABLES.values():
        connection.execute(table.staging_view(location))
    if is_commented:
        for statement in comment_statements({"v_stored": stored}, {}, _columns(connection)):
            if _OF_A_ROOT.match(statement):
                connection.execute(statement)
    connection.execute("commit")


@functools.cache
def sql_files(kind: str) -> dict[str, str]:
    """Name -> text of the files in `sql/<kind>` and its topic folders, by name."""
    paths = sorted((SQL_FOLDER / kind).rglob("*.sql"), key=lambda path: path.stem)
    return {path.stem: path.read_text() for path in paths}


def check_rules() -> dict[str, str]:
    """Name -> statement that lists the rows which break the rule.

    The files of `sql/checks`, and what the tables' definitions say: unique keys, references, and a
    row in `runs` for every job that wrote a row.
    """
    written = "\nunion all\n".join(f"select run_id from stg_{name}" for name in TABLES)
    rules = dict(sql_files("checks"))
    rules["runs_known"] = (
        "-- Rows of any table written by a job that has no row in runs.\n"
        f"select run_id, count(*) as row_count\nfrom ({written})\n"
        "anti join stg_runs using (run_id)\ngroup by run_id"
    )
    for table in TABLES.values():
        rules |= table.checks()
    return dict(sorted(rules.items()))


def path_pattern(path: str) -> str:
    """A path as it stands in the glob patterns of staging views, inside SQL quotes."""
    return glob.escape(path).replace("'", "''")


def execute_file(connection: duckdb.DuckDBPyConnection, file: str | Path, sql: str) -> None:
    """Run the text of a file; raises `QueryError` with the file's name."""
    try:
        connection.execute(sql)
    except duckdb.Error as error:
        raise QueryError(f"{file}: {str(error).splitlines()[0]}") from error


@functools.cache
def stored_catalog(is_commented: bool) -> Path | None:
    """The file of the objects, written if it is missing; None where no folder can hold it."""
    for folder in _folders():
        path = folder / f"{_digest()}{'-commented' if is_commented else ''}.duckdb"
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _require_private(folder)
            if not path.exists():
                _write(path, is_commented)
            return path
        except (OSError, duckdb.Error):
            continue
    return None


def _create_objects(connection: duckdb.DuckDBPyConnection, is_commented: bool) -> None:
    """Copy the objects from the stored catalogue; make them where there is none."""
    with _copying:
        path = stored_catalog(is_commented)
        if path is None or not _copied(connection, path):
            _execute_all(connection, is_commented)


def _copied(connection: duckdb.DuckDBPyConnection, path: Path) -> bool:
    """Whether all objects were copied; a file that cannot be read is deleted."""
    ((catalog,),) = connection.execute("select current_database()").fetchall()
    try:
        connection.execute(f"attach {sql_literal(path.as_posix())} as axes_catalog (read_only)")
        connection.execute("begin")
        connection.execute(f'copy from database axes_catalog to "{catalog}" (schema)')
        connection.execute("commit")
        connection.execute("detach axes_catalog")
    except duckdb.Error:
        for statement in ("rollback", "detach axes_catalog"):
            with contextlib.suppress(duckdb.Error):
                connection.execute(statement)
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        stored_catalog.cache_clear()
        return False
    return True


def _folders() -> Iterator[Path]:
    """Where the catalogue may be stored: the user's cache, else a folder that ends with Python."""
    name = f"catalog-{os.geteuid()}"
    with contextlib.suppress(ConfigError):
        yield cache_folder() / name
    yield Path(_temporary_folder().name) / name


@functools.cache
def _temporary_folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="axes-")


def _require_private(folder: Path) -> None:
    """Raise `PermissionError` for a folder in which somebody else could put a catalogue."""
    status = folder.lstat()
    is_own = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
    if not is_own or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(f"{folder} can be written by others")


def _write(path: Path, is_commented: bool) -> None:
    with replacing(path) as temporary, duckdb.connect(temporary) as connection:
        _execute_all(connection, is_commented)
    for other in path.parent.glob("*.duckdb"):
        if time.time() - other.stat().st_mtime > _MAX_AGE_SECONDS:
            other.unlink(missing_ok=True)


@functools.cache
def _digest() -> str:
    """A hash of all that makes the objects: DuckDB, the files of `sql/`, and this folder."""
    digest = hashlib.sha256(duckdb.__version__.encode())
    code = map(Path.read_bytes, sorted(Path(__file__).parent.glob("*.py")))
    for text in (*code, *map(str.encode, _statements().values())):
        digest.update(len(text).to_bytes(8) + text)
    return digest.hexdigest()[:32]


def _statements() -> dict[str, str]:
    return sql_files("macros") | sql_files("marts")


def _execute_all(connection: duckdb.DuckDBPyConnection, is_commented: bool) -> None:
    """Empty tables, all of `sql/` on them, and the tables deleted again."""
    statements, macros = _in_order(_statements()), sql_files("macros")
    marts = {name: sql for name, sql in statements.items() if name not in macros}
    connection.execute("begin")
    for name, table in TABLES.items():
        connection.execute(table.empty_table)
        connection.execute(f"create view {name} as select * from stg_{name}")
    for name, statement in (statements | {"v_stored": _STORED_WITHOUT_INDEX}).items():
        execute_file(connection, f"{name}.sql", statement)
    if is_commented:
        for statement in comment_statements(marts, macros, _columns(connection)):
            if not _OF_A_ROOT.match(statement):
                connection.execute(statement)
    for name in TABLES:
        connection.execute(f"drop table stg_{name}")
    connection.execute("commit")


def _in_order(files: dict[str, str]) -> dict[str, str]:
    """The macros and marts of `sql/`, each after the others that its code names."""
    graph = {
        name: (files.keys() & set(re.findall(r"\w+", without_comments(text)))) - {name}
        for name, text in files.items()
    }
    return {name: files[name] for name in graphlib.TopologicalSorter(graph).static_order()}


def _columns(connection: duckdb.DuckDBPyConnection) -> dict[str, list[str]]:
    """View -> its columns."""
    listed = connection.execute(
        "select table_name, list(column_name order by column_index) from duckdb_columns() "
        "where not internal group by table_name"
    )
    return dict(listed.fetchall())
