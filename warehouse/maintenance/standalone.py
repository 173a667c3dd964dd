"""A DuckDB file whose views point at the warehouse's Parquet: it needs DuckDB and nothing of ours.

DuckDB resolves a relative path in a view against the working folder of the process that asks, then
against `file_search_path`. So a file with absolute paths works from anywhere until the warehouse
is moved; one with relative paths moves with it, and is opened from its folder or after
`set file_search_path = 'that folder'`.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import duckdb

from axes.warehouse.errors import RootError
from axes.warehouse.storage.layout import require_root
from axes.warehouse.tables.catalog import load_sql
from axes.warehouse.tables.index import refresh_index

FILE_NAME = "warehouse.duckdb"

# The oldest DuckDB that knows what the macros are written in (lambdas), so that any since reads it.
_READABLE_SINCE: dict[str, str | bool | int | float | list[str]] = {
    "storage_compatibility_version": "v1.3.0"
}


def write_standalone(root: Path, path: Path | None = None, *, is_relative: bool = False) -> Path:
    """Write `path` (default `warehouse.duckdb` in the root) with every view, macro and comment.

    Paths in it are absolute, or relative to the file's folder. A file of that name is
    replaced once the new one is complete. Raises `RootError` if `root` is not a warehouse or the
    file cannot be written.
    """
    require_root(root)
    path = root / FILE_NAME if path is None else path
    if path.is_dir() or (path.exists() and not _is_duckdb(path)):
        raise RootError(f"{path} exists and is not a DuckDB file: name another file")
    folder = path.resolve().parent
    if "?" in folder.as_posix():
        raise RootError(f"DuckDB opens no file below {folder}, for the ?: name another file")
    location = Path(os.path.relpath(root.resolve(), folder)) if is_relative else root.resolve()
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with (
            tempfile.TemporaryDirectory() as aside,
            duckdb.connect(temporary, config=_READABLE_SINCE) as connection,
        ):
            if is_relative:
                folder = _stand_in(Path(aside), location, root.resolve())
                connection.execute("set file_search_path = ?", [folder.as_posix()])
            index = location.as_posix() if refresh_index(root) else None
            load_sql(connection, location.as_posix(), index=index, is_commented=True)
        temporary.replace(path)
    except (duckdb.Error, OSError) as error:
        raise RootError(f"cannot write {path}: {str(error).splitlines()[0]}") from error
    finally:
        for left in (temporary, temporary.with_name(temporary.name + ".wal")):
            left.unlink(missing_ok=True)
    return path


def _is_duckdb(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(12)[8:] == b"DUCK"


def _stand_in(aside: Path, location: Path, root: Path) -> Path:
    """A folder of a plain name from which the relative `location` leads to the root.

    DuckDB binds relative views when they are made, against a search path in which a comma would
    separate two folders; so not the file's folder, which may be called anything.
    """
    folder = aside.joinpath("folder", *["below"] * location.parts.count(".."))
    target = Path(os.path.normpath(folder / location))
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(root)
    return folder
