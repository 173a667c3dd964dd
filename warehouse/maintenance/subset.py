"""Copy a warehouse, or some models and prompt sets of it, into a new root to hand on.

A part is a sound warehouse: no row in it refers to one that was left out, and an axis, alignment or
study comes along only with everything it was fitted from. The same part of the same warehouse is
the same bytes, file by file.
"""

from __future__ import annotations

import shutil
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from axes.warehouse.connection import Connection, connect, query
from axes.warehouse.errors import AxesError, DefinitionError, ModelError, PromptError, RootError
from axes.warehouse.names import did_you_mean
from axes.warehouse.runs import Run
from axes.warehouse.storage.files import TEMPORARY, make_folder
from axes.warehouse.storage.ledger import Entry, Record, record
from axes.warehouse.storage.roots import resolved
from axes.warehouse.storage.store import (
    MaintainedStore,
    Store,
    filled_files,
    maintained,
    open_store,
    store_at,
)
from axes.warehouse.tables.columns import Table
from axes.warehouse.tables.schemas import TABLES
from axes.warehouse.writer import (
    column_values,
    content_key,
    rows_table,
    write_parquet,
    write_rows,
)

# An absolute path up to its last name; a URL is none.
_FOLDERS = r"""(^|[\s"'=:,(\[])/(?:[^/\s"',]+/)+"""
# Column -> the table that lists its values, and the error for a value that it lacks.
NAMES: dict[str, tuple[str, type[AxesError]]] = {
    "model": ("models", ModelError),
    "prompt_set": ("prompts", PromptError),
    "pooling": ("activations", DefinitionError),
    "study_id": ("evaluations", DefinitionError),
}
INGESTED = (
    "activations",
    "prompt_tokens",
    "projections",
    "generation_tokens",
    "token_projections",
)


@dataclass(frozen=True)
class Copied:
    """How much of one table was copied."""

    table: str
    files: int
    rows: int
    rows_left_out: int


@dataclass
class Part:
    """The keys of what stays together with everything it was made from; None where all do."""

    models: set[str] | None = None
    model_ids: set[str] | None = None
    prompt_sets: set[str] | None = None
    prompt_ids: set[str] | None = None
    poolings: set[str] | None = None
    axes: set[str] = field(default_factory=set)
    alignments: set[str] = field(default_factory=set)
    generations: set[str] = field(default_factory=set)
    studies: set[str] = field(default_factory=set)
    scorings: set[str] = field(default_factory=set)
    kept: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)

    @property
    def is_complete(self) -> bool:
        return self.models is None and self.prompt_sets is None


def subset(
    root: Path, target: Path, *, models: Sequence[str] = (), prompt_sets: Sequence[str] = ()
) -> list[Copied]:
    """Make `target` a warehouse of some models and prompt sets; with neither, of everything.

    `target` appears complete or not at all. Raises `RootError` if it exists,
    `ModelError` or `PromptError` for a name that is not in the warehouse.
    """
    store = open_store(root)
    if resolved(target).is_relative_to(resolved(root)):
        raise RootError(f"{target} lies in the warehouse itself: give a folder outside of {root}")
    connection = connect(root)
    part = find_part(
        connection,
        models=require_stored(connection, "model", models) or None,
        prompt_sets=require_stored(connection, "prompt_set", prompt_sets) or None,
    )
    with maintained(target).filling() as building:
        tables = [*(table for name, table in TABLES.items() if name != "runs"), TABLES["runs"]]
        copied = [_copy_table(store, store_at(building), table, part) for table in tables]
        if not part.is_complete:
            _write_run(store_at(building), part, models, prompt_sets)
    return copied


def require_stored(connection: Connection, column: str, names: Sequence[str]) -> set[str]:
    """The names, each of which is stored; raises the column's error (`NAMES`) for another."""
    table, error = NAMES[column]
    stored = query(connection, f"select distinct {column} from {table}").column(0).to_pylist()
    if unknown := sorted(set(names) - set(stored)):
        listed = ", ".join(sorted(stored)) or "none"
        hint = did_you_mean(unknown[0], stored)
        what = column.replace("_", " ")
        raise error(f"no {what} {unknown[0]}{hint} in the warehouse (stored: {listed})")
    return set(names)


def find_part(
    connection: Connection,
    *,
    models: set[str] | None = None,
    prompt_sets: set[str] | None = None,
    poolings: set[str] | None = None,
) -> Part:
    """The keys that come along; each kind may rest on those found before it."""
    part = Part(models=models, prompt_sets=prompt_sets, poolings=poolings)

    def keys(sql: str) -> set[str]:
        lists = {
            name: None if values is None else sorted(values)
            for name, values in vars(part).items()
            if f"${name}" in sql
        }
        return set(query(connection, sql, lists).column(0).to_pylist())

    if models is not None:
        part.model_ids = keys(f"select model_id from models where {_among('model', 'models')}")
    if prompt_sets is not None:
        is_chosen = _among("prompt_set", "prompt_sets")
        part.prompt_ids = keys(f"select distinct prompt_id from prompts where {is_chosen}")
    _add_fitted(part, keys)
    part.generations = keys(
        f"""
        select generation_id
        from generations
        where
            {_among("model_id", "model_ids")}
            and {_among("prompt_id", "prompt_ids")}
            and (axis_id is null or {_among("axis_id", "axes")})
        """
    )
    # Half a study, or half a scoring, would look like a complete one.
    left_out = f"""
            not (model is null or {_among("model", "models")})
            or not (prompt_set is null or {_among("prompt_set", "prompt_sets")})
            or not (axis_id is null or {_among("axis_id", "axes")})
        """
    part.studies = keys("select study_id from evaluations") - keys(
        f"select study_id from evaluations where {left_out}"
    )
    part.scorings = keys("select scoring_id from scored_answers") - keys(
        f"select scoring_id from scored_answers where {left_out}"
    )
    return part


def _add_fitted(part: Part, keys: Callable[[str], set[str]]) -> None:
    """The alignments between the part's models, and the axes that they and its prompts lead to."""
    part.alignments = keys(
        f"""
        select alignment_id
        from alignments
        where
            {_among("model_id", "model_ids")}
            and {_among("reference_model_id", "model_ids")}
            and {_among("prompt_set", "prompt_sets")}
            and (pooling is null or {_among("pooling", "poolings")})
        """
    )
    part.axes = keys(
        f"""
        select axis_id
        from axes
        where
            {_among("space_model_id", "model_ids")}
            and {_among("prompt_set", "prompt_sets")}
            and (pooling is null or {_among("pooling", "poolings")})
            and (alignment_id is null or {_among("alignment_id", "alignments")})
        """
    )
    # An axis comes along only with every axis that it was made from, and they with theirs.
    incomplete = f"""
        select distinct axis_id
        from (select axis_id, unnest(source_axis_ids) as source from axes)
        where {_among("axis_id", "axes")} and not {_among("source", "axes")}
        """
    while lacking_sources := keys(incomplete):
        part.axes -= lacking_sources


def _among(column: str, keys: str) -> str:
    """SQL: the column's value is one of the keys of a part, or all come along."""
    return f"(${keys} is null or {column} in (select unnest(${keys}::varchar[])))"


def kept_partition(table: Table, part: Part, value: str | None) -> bool:
    """Whether rows of the table's partition `value` may come along."""
    allowed = {"model": part.models, "prompt_set": part.prompt_sets}.get(table.partition or "")
    return allowed is None or value in allowed


def conditions(table: Table, part: Part) -> dict[str, Collection[str]]:
    """Column -> the values that come along, null among them; a row must meet all of them."""
    allowed: dict[str, Collection[str] | None] = {
        "alignment_id": part.alignments,
        "axis_id": part.axes,
        "generation_id": part.generations,
        "model_id": part.model_ids,
        "pooling": part.poolings,
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


def is_kept(group: pa.Table, conditions: Mapping[str, Collection[str]]) -> pa.ChunkedArray:
    """Of each row whether it meets the conditions."""
    kept = pa.chunked_array([pa.repeat(True, len(group))])
    for name, values in conditions.items():
        column = group.column(name)
        among = pc.is_in(column, value_set=pa.array(sorted(values), column.type))
        kept = pc.and_(kept, pc.or_(among, pc.is_null(column)))
    return kept


def _copy_table(store: MaintainedStore, target: Store, table: Table, part: Part) -> Copied:
    entries, source_rows = store.entries(table.name), 0
    copies: dict[Path, tuple[Path, Record]] = {}
    scratch = make_folder(target.home, target.home / TEMPORARY)
    for value, path in filled_files(store.root, table):
        source_rows += pq.read_metadata(store.source(path)).num_rows
        if not kept_partition(table, part, value):
            continue
        written = scratch / f"{uuid.uuid4().hex}.tmp"
        with store.local(path) as file:
            if part.is_complete:
                entry = entries.get(path.relative_to(store.root).as_posix())
                copy = _copied(path, file, written, entry)
            else:
                copy = write_parquet(written, table, _kept_rows(file, table, part))
        part.kept.update(copy.runs)
        name = path.relative_to(store.root).with_name(f"{store.stem(path)}.parquet")
        is_filled = copy.rows or part.is_complete
        place = target.send(target.root / name, written, copy) if is_filled else None
        if place != written:
            written.unlink()
        if place is not None:
            copies[target.root / name] = place, copy
    if copies:
        target.commit(table.name, copies)
    rows = sum(copy.rows for _, copy in copies.values())
    return Copied(table.name, len(copies), rows, source_rows - rows)


def _copied(path: Path, file: Path, target: Path, entry: Entry | None) -> Record:
    """Copy a file byte by byte; raises `RootError` where it is not as it was written."""
    shutil.copyfile(file, target)
    copy = record(target, pq.read_metadata(target).num_rows, entry.runs if entry else {})
    if entry is not None and not entry.has(copy.sha256):
        raise RootError(f"{path} is not as it was written: run `axes warehouse check`")
    return copy


def _kept_rows(path: Path, table: Table, part: Part) -> Iterator[pa.Table]:
    """The rows that come along, row group by row group."""
    required = conditions(table, part)
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        for index in range(file.num_row_groups):
            group = file.read_row_group(index)
            kept = group.filter(is_kept(group, required))
            if table.name in INGESTED:
                part.left_out.update(group.column("run_id").to_pylist())
                part.left_out.subtract(kept.column("run_id").to_pylist())
            if table.name in ("models", "runs"):
                kept = _without_folders(kept)
            if len(kept):
                yield kept


def _without_folders(rows: pa.Table) -> pa.Table:
    """Of absolute paths the last name: the part is for others, the folders are not."""
    for index, column in enumerate(rows.schema):
        if column.type == pa.string():
            names = pc.replace_substring_regex(rows[column.name], _FOLDERS, r"\1")
            rows = rows.set_column(index, column, names)
    return rows


def _write_run(store: Store, part: Part, models: Sequence[str], prompt_sets: Sequence[str]) -> None:
    """The part's row in `runs`; its time is that of the last job, so that bytes repeat."""
    jobs = [path for _, path in filled_files(store.root, TABLES["runs"])]
    times = set().union(*(column_values(store.source(path), "started_at") for path in jobs))
    when = max(times, default=datetime(1970, 1, 1, tzinfo=UTC)).astimezone(UTC)
    parameters = {
        "models": sorted(models),
        "prompt_sets": sorted(prompt_sets),
        "rows_left_out": {
            name: count
            for name, count in sorted(part.left_out.items())
            if count and name in part.kept
        },
    }
    run = Run(store.root, "warehouse subset", parameters, command_line=None, started_at=when)
    run.run_id = f"subset-{content_key(parameters, str(when))}"
    row = {**run.row("finished", when), "library_versions": "{}"}
    write_rows(store.root, "runs", rows_table("runs", [row]), name=run.run_id)
