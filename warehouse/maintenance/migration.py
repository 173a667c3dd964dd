"""Bring a root of an older schema version up to date: `migrate(root)`.

The changed tables are written next to the old ones, which stay as they are and readable by the
code that wrote them. Only when everything is on the disk does the marker say that a switch is under
way, and the folders change places; from there on a killed migration can only be ended. The old
folders are retired, not deleted.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from axes.warehouse.errors import RootError
from axes.warehouse.storage.files import make_folder, replacing, sync_folder
from axes.warehouse.storage.layout import (
    read_version,
    require_no_links,
    retired_folder,
    write_empty_file,
    write_marker,
)
from axes.warehouse.storage.ledger import (
    LOCKS,
    Record,
    ledger_file,
    locked,
    write_ledger,
)
from axes.warehouse.storage.store import data_files, filled_files, maintenance_lock
from axes.warehouse.tables.columns import Table
from axes.warehouse.tables.schemas import SCHEMA_VERSION, TABLES
from axes.warehouse.writer import content_key, read_record, write_parquet

BUILDING = ".migration"
_RECORDS = "records.json"
UNKNOWN_HASH = "unknown"

Step = Callable[[Path], dict[str, Callable[[pa.Table], pa.Table]]]


@dataclass(frozen=True)
class Migration:
    """What was done for one table."""

    table: str
    from_version: int
    to_version: int
    files: int
    rows: int


def migrate(root: Path) -> list[Migration]:
    """Migrate a root to this code's schema version; empty where it has that already.

    Raises `RootError` for a version that is newer or unknown, a job under way, or a file that
    cannot be read.
    """
    version, is_switching = read_version(root)
    if version == SCHEMA_VERSION and not is_switching:
        return []
    require_no_links(root)
    if version not in range(1, SCHEMA_VERSION):
        raise RootError(
            f"{root} has schema version {version}, this code knows 1 to {SCHEMA_VERSION}: "
            "use the version of safety-axes that wrote it, or a newer one"
        )
    with maintenance_lock(root), _no_job(root):
        if not is_switching:
            shutil.rmtree(root / BUILDING, ignore_errors=True)
            _build(root, version)
            write_marker(root, {"schema_version": f"{version} to {SCHEMA_VERSION}"})
        done = _switch(root, version)
        write_marker(root, {"schema_version": SCHEMA_VERSION})
        shutil.rmtree(root / BUILDING)
    return done


def _to_version_2(root: Path) -> dict[str, Callable[[pa.Table], pa.Table]]:
    """`activations` has the hash of the rendered text.

    It is known if the prompt was rendered as raw text and is still stored.
    """
    texts: dict[str, str] = {}
    for path in data_files(root, TABLES["prompts"]):
        with _open(path) as file:
            prompts = file.read(columns=["prompt_id", "text"])
        ids, values = prompts["prompt_id"].to_pylist(), prompts["text"].to_pylist()
        texts |= dict(zip(ids, values, strict=True))

    def add_hash(group: pa.Table) -> pa.Table:
        keys = zip(group["prompt_id"].to_pylist(), group["template"].to_pylist(), strict=True)
        hashes = [
            content_key(texts[prompt_id])
            if template == "raw" and prompt_id in texts
            else UNKNOWN_HASH
            for prompt_id, template in keys
        ]
        return group.append_column("rendered_hash", pa.array(hashes, pa.string()))

    return {"activations": add_hash}


# Version -> what brings the rows of each changed table to the next; tables that are new are made,
# and so are new columns that may be empty.
_STEPS: dict[int, Step] = {1: _to_version_2}


def _no_job(root: Path) -> ExitStack:
    """Hold every lock that a job of this root has ever taken; refuse while one is held."""
    with ExitStack() as stack:
        for path in sorted((root / LOCKS).glob("*.lock")):
            if path.stem != "maintenance":
                refusal = f"a job is running on {root} ({path.name}): let it end"
                stack.enter_context(locked(root, path.stem, refusal=refusal))
        return stack.pop_all()


def _build(root: Path, version: int) -> None:
    """Write the changed tables, and the records of every file as it will be, below .migration."""
    building = root / BUILDING
    steps = [_STEPS[number](root) for number in range(version, SCHEMA_VERSION)]
    records: dict[str, dict[str, Mapping[str, object]]] = {}
    for table in TABLES.values():
        changes = [step[table.name] for step in steps if table.name in step]
        if any(_is_missing_columns(path, table) for path in data_files(root, table)):
            changes.append(partial(_with_optional_columns, table=table))
        is_new = not (root / table.name).exists()
        records[table.name] = {}
        if changes or is_new:
            write_empty_file(building, table)
        for _, path in filled_files(root, table):
            name = path.relative_to(root).as_posix()
            if changes:
                target = building / name
                make_folder(root, target.parent)
                stored = write_parquet(target, table, _changed(path, table, changes))
            else:
                with _open(path):
                    stored = read_record(path)
            records[table.name][name] = vars(stored)
    with replacing(make_folder(root, building) / _RECORDS) as temporary:
        temporary.write_text(json.dumps(records))
    for folder, _, _ in os.walk(building):
        sync_folder(Path(folder))


def _changed(
    path: Path, table: Table, changes: list[Callable[[pa.Table], pa.Table]]
) -> Iterator[pa.Table]:
    with _open(path) as file:
        for index in range(file.num_row_groups):
            group = file.read_row_group(index)
            for change in changes:
                group = change(group)
            yield group.select(table.file_schema.names).cast(table.file_schema)


def _is_missing_columns(path: Path, table: Table) -> bool:
    with _open(path) as file:
        return not {*table.file_schema.names} <= {*file.schema_arrow.names}


def _with_optional_columns(group: pa.Table, table: Table) -> pa.Table:
    """Optional columns are null in rows older than the column."""
    for field in table.file_schema:
        if field.nullable and field.name not in group.column_names:
            group = group.append_column(field.name, pa.nulls(len(group), field.type))
    return group


@contextmanager
def _open(path: Path) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            yield file
    except (OSError, pa.ArrowException) as error:
        raise RootError(
            f"{path} cannot be read ({error}): move it out of the warehouse and migrate again; "
            "its rows can be ingested again afterwards"
        ) from error


def _switch(root: Path, version: int) -> list[Migration]:
    """Put the built tables into place; each step is skipped where it is done already."""
    building = root / BUILDING
    retired = retired_folder(root)
    records = json.loads((building / _RECORDS).read_text())
    done = []
    for table in TABLES.values():
        built, live = building / table.name, root / table.name
        if built.exists():
            if live.exists():
                make_folder(root, retired)
                live.rename(retired / table.name)
            built.rename(live)
        stored = {name: Record(**entry) for name, entry in records[table.name].items()}
        write_ledger(ledger_file(root, table.name), stored)
        rows = sum(entry.rows for entry in stored.values())
        done.append(Migration(table.name, version, SCHEMA_VERSION, len(stored), rows))
    for folder in (root, building, *([retired] if retired.exists() else ())):
        sync_folder(folder)
    return done
