"""Where things lie below a root: the marker file, and one hive partition per value.

ROOT/warehouse.json
ROOT/activations/model=smollm2-135m/<content key>.parquet
ROOT/activations/model=__none__/schema.parquet      (no rows: an empty table still has a type)
"""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import pyarrow.parquet as pq

from axes.warehouse.errors import RootError
from axes.warehouse.ledger import LOCKS, locked
from axes.warehouse.tables.columns import Table
from axes.warehouse.tables.schemas import SCHEMA_VERSION, TABLES

MARKER = "warehouse.json"
NO_PARTITION = "__none__"
EMPTY_FILE = "schema.parquet"
RETIRED = ".retired"


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


def data_files(root: Path, table: Table) -> list[Path]:
    """The Parquet files that a view over the table reads, in order."""
    folder = root / table.name
    return sorted(folder.glob("*.parquet" if table.partition is None else "*/*.parquet"))


def empty_file(root: Path, table: Table) -> Path:
    """The file without rows that gives an empty table its columns."""
    return partition_folder(root, table, NO_PARTITION) / EMPTY_FILE


def write_empty_file(root: Path, table: Table) -> None:
    """Give a table its file without rows."""
    path = empty_file(root, table)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{EMPTY_FILE}.tmp")
    pq.write_table(table.file_schema.empty_table(), temporary)
    temporary.replace(path)


def retired_folder(root: Path) -> Path:
    """A new folder for files taken out of use; `vacuum` deletes it after a while."""
    return root / RETIRED / f"{datetime.now(UTC):%Y%m%dT%H%M%S.%f}"


def init_root(root: Path) -> bool:
    """Make `root` a warehouse if it is absent or an empty folder.

    Returns whether anything was made. Raises `RootError` for a folder that holds other things.
    """
    if (root / MARKER).exists():
        require_root(root)
        return False
    _require_plain_path(root)
    is_taken = root.exists() and (not root.is_dir() or any(_foreign(root)))
    # Looked for once more: another process may have made the warehouse meanwhile.
    if is_taken and not (root / MARKER).exists():
        raise RootError(
            f"{root} is not a warehouse and not empty: give --root another folder, "
            "or an empty one to start a warehouse in it"
        )
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RootError(f"cannot make a warehouse in {root}: {error}") from error
    with locked(root, "init"):
        # The second of two jobs must not rewrite files that the first reads already.
        if (root / MARKER).exists():
            return False
        _fill(root)
    return True


def _fill(root: Path) -> None:
    """An empty file for every table, and the marker last."""
    try:
        for table in TABLES.values():
            write_empty_file(root, table)
        write_marker(root, {"schema_version": SCHEMA_VERSION})
    except OSError as error:
        raise RootError(f"cannot make a warehouse in {root}: {error}") from error


def require_root(root: Path) -> None:
    """Raise `RootError` unless `root` is a warehouse of this schema version."""
    version, is_migrating = read_version(root)
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
    _require_plain_path(root)


def read_version(root: Path) -> tuple[int, bool]:
    """The schema version of a root, and whether a migration from it has begun to switch.

    Raises `RootError` where `root` is not a warehouse.
    """
    marker = root / MARKER
    if not marker.exists():
        raise RootError(
            f"{root} is not a warehouse (no {MARKER}): give --root or AXES_ROOT, "
            "or start one with `axes warehouse init`"
        )
    try:
        # A number, or "1 to 2" while folders change places, which no version equals.
        first, *others = str(json.loads(marker.read_text())["schema_version"]).split(" to ")
        return int(first), bool(others)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RootError(f"{marker} cannot be read: {error!r}") from error


def write_marker(root: Path, content: dict[str, int | str]) -> None:
    """Replace the marker, on the disk before it is renamed."""
    temporary = root / f".{MARKER}.tmp"
    with temporary.open("w") as file:
        file.write(json.dumps(content) + "\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(root / MARKER)


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
    written = {*TABLES, f".{MARKER}.tmp", LOCKS}
    return [path for path in root.iterdir() if path.name not in written]
