"""Copy a warehouse, or some models and prompt sets of it, into a new root to hand on.

A part is a sound warehouse of its own: no row in it refers to one that was left out, and a fitted
thing comes along only with everything it was fitted from. The same part of the same warehouse is
the same bytes, file by file.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from axes.warehouse.connection import Connection, connect, rows
from axes.warehouse.errors import ModelError, PromptError, RootError
from axes.warehouse.layout import EMPTY_FILE, data_files, init_root, require_root
from axes.warehouse.ledger import Record, ledger_file, read_ledger, record, write_ledger
from axes.warehouse.names import did_you_mean
from axes.warehouse.runs import code_version
from axes.warehouse.tables.columns import Table
from axes.warehouse.tables.schemas import TABLES
from axes.warehouse.writer import content_key, rows_table, write_parquet

_INGESTED = ("activations", "prompt_tokens", "generation_tokens", "token_projections")


@dataclass(frozen=True)
class Copied:
    """What of one table came along."""

    table: str
    files: int
    rows: int
    rows_left_out: int


@dataclass
class _Part:
    """The keys that come along; None where all do."""

    models: set[str] | None
    model_ids: set[str] | None
    prompt_sets: set[str] | None
    prompt_ids: set[str] | None
    axes: set[str] = field(default_factory=set)
    alignments: set[str] = field(default_factory=set)
    generations: set[str] = field(default_factory=set)
    studies: set[str] = field(default_factory=set)
    scorings: set[str] = field(default_factory=set)
    kept: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)

    @property
    def is_whole(self) -> bool:
        return self.models is None and self.prompt_sets is None


def subset(
    root: Path, target: Path, *, models: Sequence[str] = (), prompt_sets: Sequence[str] = ()
) -> list[Copied]:
    """Make `target` a warehouse of some models and prompt sets; with neither, of everything.

    `target` appears whole or not at all. Raises `RootError` where it is there already,
    `ModelError` or `PromptError` for a name that is not in the warehouse.
    """
    require_root(root)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise RootError(f"{target} is there and not empty: give another folder")
    if target.resolve().is_relative_to(root.resolve()):
        raise RootError(f"{target} lies in the warehouse itself: give a folder outside of {root}")
    connection = connect(root)
    part = _find_part(connection, models, prompt_sets)
    building = target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        init_root(building)
        copied = [
            _copy_table(root, building, table, part)
            for table in TABLES.values()
            if table.name != "runs"
        ]
        copied.append(_copy_table(root, building, TABLES["runs"], part))
        if not part.is_whole:
            _write_run(building, part, models, prompt_sets)
        building.rename(target)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return copied


def _find_part(connection: Connection, models: Sequence[str], prompt_sets: Sequence[str]) -> _Part:
    part = _Part(None, None, None, None)
    if models:
        found = rows(connection, "select model, model_id from models")
        part.models = _known(models, {row["model"] for row in found}, "model", ModelError)
        part.model_ids = {row["model_id"] for row in found if row["model"] in part.models}
    if prompt_sets:
        found = rows(connection, "select prompt_set, prompt_id from prompts")
        there = {row["prompt_set"] for row in found}
        part.prompt_sets = _known(prompt_sets, there, "prompt set", PromptError)
        part.prompt_ids = {
            row["prompt_id"] for row in found if row["prompt_set"] in part.prompt_sets
        }
    part.alignments = {
        row["alignment_id"]
        for row in rows(
            connection,
            "select alignment_id, model_id, reference_model_id, prompt_set from alignments",
        )
        if _among(row["model_id"], part.model_ids)
        and _among(row["reference_model_id"], part.model_ids)
        and _among(row["prompt_set"], part.prompt_sets)
    }
    part.axes = _find_axes(connection, part)
    part.generations = {
        row["generation_id"]
        for row in rows(
            connection, "select generation_id, model_id, prompt_id, axis_id from generations"
        )
        if _among(row["model_id"], part.model_ids)
        and _among(row["prompt_id"], part.prompt_ids)
        and (row["axis_id"] is None or row["axis_id"] in part.axes)
    }
    part.studies = _find_studies(connection, part)
    part.scorings = _find_scorings(connection, part)
    return part


def _known(
    asked: Sequence[str], there: Collection[str], what: str, error: type[ModelError | PromptError]
) -> set[str]:
    if unknown := sorted(set(asked) - set(there)):
        names = ", ".join(sorted(there)) or "none"
        hint = did_you_mean(unknown[0], there)
        raise error(f"no {what} {unknown[0]}{hint} in the warehouse (there: {names})")
    return set(asked)


def _among(value: str, allowed: Collection[str] | None) -> bool:
    return allowed is None or value in allowed


def _find_axes(connection: Connection, part: _Part) -> set[str]:
    """Axes in a space that comes along, with their alignment, prompt set and every source."""
    found = rows(
        connection,
        "select axis_id, space_model_id, alignment_id, source_axis_ids, prompt_set from axes",
    )
    kept = {
        row["axis_id"]: row["source_axis_ids"]
        for row in found
        if _among(row["space_model_id"], part.model_ids)
        and _among(row["prompt_set"], part.prompt_sets)
        and (row["alignment_id"] is None or row["alignment_id"] in part.alignments)
    }
    while incomplete := [name for name, sources in kept.items() if not kept.keys() >= {*sources}]:
        for name in incomplete:
            del kept[name]
    return set(kept)


def _find_studies(connection: Connection, part: _Part) -> set[str]:
    """Studies all of whose figures come along: half a study would look like a whole one."""
    found = rows(connection, "select study_id, model, prompt_set, axis_id from evaluations")
    broken = {
        row["study_id"]
        for row in found
        if (row["model"] is not None and not _among(row["model"], part.models))
        or (row["prompt_set"] is not None and not _among(row["prompt_set"], part.prompt_sets))
        or (row["axis_id"] is not None and row["axis_id"] not in part.axes)
    }
    return {row["study_id"] for row in found} - broken


def _find_scorings(connection: Connection, part: _Part) -> set[str]:
    """Scorings all of whose models, axes and prompts come along, as with studies."""
    found = rows(
        connection, "select distinct scoring_id, model, prompt_set, axis_id from scored_answers"
    )
    broken = {
        row["scoring_id"]
        for row in found
        if not _among(row["model"], part.models)
        or not _among(row["prompt_set"], part.prompt_sets)
        or row["axis_id"] not in part.axes
    }
    return {row["scoring_id"] for row in found} - broken


def _conditions(table: Table, part: _Part) -> dict[str, Collection[str]]:
    """Column -> the values that come along, null among them; a row must meet all of them."""
    allowed: dict[str, Collection[str] | None] = {
        "alignment_id": part.alignments,
        "axis_id": part.axes,
        "generation_id": part.generations,
        "model_id": part.model_ids,
        "prompt_id": part.prompt_ids,
        "prompt_set": part.prompt_sets,
        "scoring_id": part.scorings,
        "study_id": part.studies,
        "run_id": part.kept if table.name == "runs" else None,
    }
    return {
        name: values
        for name, values in allowed.items()
        if name in table.file_schema.names and values is not None
    }


def _copy_table(root: Path, building: Path, table: Table, part: _Part) -> Copied:
    records: dict[str, Record] = {}
    entries = read_ledger(root, table.name)
    source_rows = 0
    by_partition = {"model": part.models, "prompt_set": part.prompt_sets}
    for path in data_files(root, table):
        if path.name == EMPTY_FILE:
            continue
        name = path.relative_to(root).as_posix()
        source_rows += pq.read_metadata(path).num_rows
        value = unquote(path.parent.name.partition("=")[2])
        if table.partition and not _among(value, by_partition.get(table.partition)):
            continue
        target = building / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if part.is_whole:
            shutil.copyfile(path, target)
            runs = entries[name].runs if name in entries else {}
            records[name] = record(target, pq.read_metadata(target).num_rows, runs)
            if name in entries and records[name].sha256 != entries[name].records[-1].sha256:
                raise RootError(f"{path} is not as it was written: run `axes warehouse check`")
            continue
        known = write_parquet(target, table, _kept_rows(path, table, part))
        if known.rows:
            records[name] = known
        else:
            target.unlink()
        part.kept.update(known.runs)
    for folder in sorted((building / table.name).glob("*=*")):
        if not any(folder.iterdir()):
            folder.rmdir()
    write_ledger(ledger_file(building, table.name), records)
    count = sum(known.rows for known in records.values())
    return Copied(table.name, len(records), count, source_rows - count)


def _kept_rows(path: Path, table: Table, part: _Part) -> Iterator[pa.Table]:
    """The rows that come along, row group by row group."""
    conditions = _conditions(table, part)
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        for index in range(file.num_row_groups):
            group = file.read_row_group(index)
            kept = group
            for name, values in conditions.items():
                column = kept.column(name)
                among = pc.is_in(column, value_set=pa.array(sorted(values), column.type))
                kept = kept.filter(pc.or_(among, pc.is_null(column)))
            if table.name in _INGESTED:
                part.left_out.update(group.column("run_id").to_pylist())
                part.left_out.subtract(kept.column("run_id").to_pylist())
            if len(kept):
                yield kept


def _write_run(
    building: Path, part: _Part, models: Sequence[str], prompt_sets: Sequence[str]
) -> None:
    """The part's own row in `runs`; its time is that of the last job, so that bytes repeat."""
    last = rows(connect(building), "select max(started_at)::varchar as last from runs")[0]["last"]
    when = datetime.fromisoformat(last) if last else datetime(1970, 1, 1, tzinfo=UTC)
    parameters = {
        "models": sorted(models),
        "prompt_sets": sorted(prompt_sets),
        "rows_left_out": {
            name: count
            for name, count in sorted(part.left_out.items())
            if count and name in part.kept
        },
    }
    run_id = f"subset-{content_key(parameters, str(when))}"
    row = {
        "run_id": run_id,
        "command": "warehouse subset",
        "parameters": json.dumps(parameters, sort_keys=True),
        "status": "finished",
        "code_version": code_version(),
        "library_versions": "{}",
        "rows": 0,
        "tokens": 0,
        "skipped": [],
        "started_at": when.astimezone(UTC),
        "finished_at": when.astimezone(UTC),
    }
    path = building / "runs" / f"{run_id}.parquet"
    known = write_parquet(path, TABLES["runs"], [rows_table("runs", [row])])
    entries = {name: entry.records[-1] for name, entry in read_ledger(building, "runs").items()}
    write_ledger(
        ledger_file(building, "runs"), {**entries, path.relative_to(building).as_posix(): known}
    )
