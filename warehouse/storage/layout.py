"""Where things lie below a root: the marker file, and one hive partition per value.

ROOT/warehouse.json
ROOT/activations/model=smollm2-135m/<content key>.parquet
ROOT/activations/model=__none__/schema.parquet      (no rows: an empty table still has a type)
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote, unquote

import pyarrow as pa
import pyarrow.parquet as pq

from axes.warehouse.errors import RootError
from axes.warehouse.storage.files import (
    LOCKS,
    RETIRED,
    TEMPORARY,
    find_irregular,
    make_folder,
    parse_json,
    read_file,
    replacing,
    require_no_link,
)
from axes.warehouse.tables.columns import Table
from axes.warehouse.tables.schemas import SCHEMA_VERSION, TABLES

MARKER = "warehouse.json"
NO_PARTITION = "__none__"
EMPTY_FILE = "schema.parquet"
_MARKER_BYTES = 1 << 20


def partition_folder(root: Path, table: Table, value: str | None = None) -> Path:
    """The folder that holds the files of one partition; `value` is percent-encoded as hive does.

    >>> partition_folder(Path("lake"), TABLES["activations"], "owner/name").as_posix()
    'lake/activations/model=owner%2Fname'
    >>> partition_folder(Path("lake"), TABLES["runs"]).as_posix()
    'lake/runs'
    """
    folder = root / table.name
    if table.partition is None:
        return folder
    if not value:
        raise ValueError(f"{table.name} is partitioned by {table.partition}: a value is needed")
    return folder / f"{table.partition}={quote(value, safe='')}"


def partition_value(folder: Path) -> str | None:
    """The value of a partition's folder, as `partition_folder` takes it; None of any other."""
    return unquote(folder.name.partition("=")[2]) or None


def parquet_files(folder: Path) -> list[Path]:
    """The Parquet files of one partition, in order; none where it is absent."""
    # Sorted as text: paths compare part by part, which takes longer than listing them.
    paths = sorted(
        entry.path
        for entry in _entries(folder)
        if entry.name.endswith(".parquet") and entry.is_file(follow_symlinks=False)
    )
    return list(map(Path, paths))


def partition_folders(root: Path, table: Table) -> list[Path]:
    """The folders with a table's files, in order."""
    folder = root / table.name
    if table.partition is None:
        return [folder]
    return sorted(
        Path(entry.path)
        for entry in _entries(folder)
        if entry.name.startswith(f"{table.partition}=") and entry.is_dir(follow_symlinks=False)
    )


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What lies in a folder, without what is hidden; nothing where it is none, or a link."""
    if folder.is_symlink():
        return []
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        return [entry for entry in entries if not entry.name.startswith(".")]
    return []


def empty_file(root: Path, table: Table) -> Path:
    """The file without rows that gives an empty table its columns."""
    return partition_folder(root, table, NO_PARTITION) / EMPTY_FILE


def write_empty_file(root: Path, table: Table) -> None:
    """Give a table its file without rows."""
    path = empty_file(root, table)
    make_folder(root, path.parent)
    with replacing(path, make_folder(root, root / TEMPORARY)) as temporary:
        pq.write_table(table.file_schema.empty_table(), temporary)


def retired_folder(root: Path) -> Path:
    """A new folder for files taken out of use; `vacuum` deletes it after a while."""
    return root / RETIRED / f"{datetime.now(UTC):%Y%m%dT%H%M%S.%f}"


def init_root(root: Path) -> bool:
    """Make `root` a warehouse if it is absent or an empty folder.

    Returns whether anything was made. Raises `RootError` for a folder that holds other things.
    """
    from axes.warehouse.storage.ledger import locked  # Nothing that only reads takes a lock.

    if (root / MARKER).exists():
        require_root(root)
        return False
    _require_plain_path(root)
    require_no_links(root)
    is_taken = root.exists() and (not root.is_dir() or any(_foreign(root)))
    # Looked for once more: another process may have made the warehouse meanwhile.
    if is_taken and not (root / MARKER).exists():
        raise RootError(
            f"{root} is not a warehouse and not empty: give --root another folder, "
            "or an empty one to start a warehouse in it"
        )
    try:
        make_folder(root, root)
        with locked(root, "init"):
            # The second of two jobs must not rewrite files that the first reads already.
            if (root / MARKER).exists():
                return False
            for table in TABLES.values():
                write_empty_file(root, table)
            write_marker(root, {"schema_version": SCHEMA_VERSION})
    except OSError as error:
        raise RootError(f"cannot make a warehouse in {root}: {error}") from error
    return True


def require_root(root: Path, *, allows_links: bool = False) -> None:
    """Raise `RootError` unless `root` is a warehouse of this schema version, of regular files.

    `allows_links` and the like in the folders of tables, for commands that set them aside.
    A file of an empty table that a power cut emptied is written again.
    """
    require_version(root, *read_version(root))
    _require_plain_path(root)
    require_no_links(root, allows_in_tables=allows_links)
    for table in TABLES.values():
        path = empty_file(root, table)
        try:
            if path.is_file() and not path.stat().st_size:
                write_empty_file(root, table)
        except OSError as error:
            raise RootError(f"{path} is empty and cannot be written: {error}") from error


def require_version(root: Path, version: int, is_migrating: bool) -> None:
    """Raise `RootError` for a root that is not of this code's schema version."""
    if version != SCHEMA_VERSION or is_migrating:
        state = "is being migrated from" if is_migrating else "has"
        remedy = (
            "run `axes warehouse migrate`"
            if version < SCHEMA_VERSION
            else "a newer version of safety-axes wrote it: install that"
        )
        raise RootError(
            f"{root} {state} schema version {version}, this code reads version {SCHEMA_VERSION}: "
            f"{remedy}"
        )


def require_no_links(root: Path, *, allows_in_tables: bool = False) -> None:
    """Raise `RootError` for a link or pipe in a root, or a folder that cannot be listed."""
    try:
        for path in find_irregular(root):
            if not allows_in_tables or path.relative_to(root).parts[0] not in TABLES:
                require_no_link(root, path)
                raise RootError(f"{path} is a pipe, socket or device, and no file: delete it")
    except OSError as error:
        raise RootError(f"{root} cannot be read: {error}") from error


def read_version(root: Path) -> tuple[int, bool]:
    """The schema version of a root, and whether a migration from it has begun to switch.

    Raises `RootError` where `root` is not a warehouse.
    """
    marker = root / MARKER
    if not marker.exists():
        raise no_warehouse(root)
    require_no_link(root, marker)
    try:
        return parse_version(read_file(marker, _MARKER_BYTES))
    except (RootError, OSError, ValueError, KeyError, TypeError) as error:
        raise RootError(
            f"{marker} cannot be read ({error!r}): `axes warehouse repair` writes it again"
        ) from error


def recover_marker(root: Path, *, is_dry_run: bool = False) -> bool:
    """Write a marker that is lost or damaged again; False where it is sound.

    Raises `RootError` unless every table has the columns of this schema version.
    """
    try:
        read_version(root)
        return False
    except RootError as error:
        require_no_links(root, allows_in_tables=True)
        for table in TABLES.values():
            try:
                is_same = pq.read_schema(empty_file(root, table)).equals(table.file_schema)
            except (OSError, pa.ArrowException, ValueError):
                is_same = False
            if not is_same:
                raise error
    if not is_dry_run:
        write_marker(root, {"schema_version": SCHEMA_VERSION})
    return True


def no_warehouse(root: Path) -> RootError:
    """The error of a root without a marker."""
    return RootError(
        f"{root} is not a warehouse (no {MARKER}): give --root or AXES_ROOT, "
        "or start one with `axes warehouse init`"
    )


def parse_version(marker: bytes) -> tuple[int, bool]:
    """What `read_version` returns, from a marker's content; `ValueError`, `KeyError`, `TypeError`.

    A number, or "1 to 2" while folders change places, which no version equals.
    """
    first, *others = str(parse_json(marker)["schema_version"]).split(" to ")
    return int(first), bool(others)


def write_marker(root: Path, content: dict[str, int | str]) -> None:
    """Replace the marker, on the disk before it is renamed."""
    with replacing(root / MARKER, make_folder(root, root / TEMPORARY)) as temporary:
        temporary.write_bytes(marker_bytes(content))


def marker_bytes(content: dict[str, int | str]) -> bytes:
    """The bytes of a marker."""
    return json.dumps(content).encode() + b"\n"


def _require_plain_path(root: Path) -> None:
    """Raise `RootError` below a folder such as `seed=1`: DuckDB would read it as that column."""
    columns = {field.name for table in TABLES.values() for field in table.schema}
    for folder in root.resolve().parts:
        name, equals, _ = folder.partition("=")
        if equals and name.lower() in columns:
            raise RootError(
                f"{root} lies in a folder {folder}, which would be read as the column {name}: "
                "give --root another folder"
            )


def _foreign(root: Path) -> list[Path]:
    """What lies in `root` that an interrupted `init_root` would not have left."""
    written = {*TABLES, f".{MARKER}.tmp", LOCKS, TEMPORARY}
    return [path for path in root.iterdir() if path.name not in written]
