"""Delete models, prompt sets, poolings or studies, and everything that was made from them.

What stays is what a subset of all the others would hold, so no row refers to one that is gone. Rows
of derived tables go first: a job that was killed is ended by starting it again, also where the name
itself is gone already.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from axes.warehouse.connection import Connection, connect, query
from axes.warehouse.maintenance.subset import (
    INGESTED,
    NAMES,
    Part,
    conditions,
    find_part,
    is_kept,
    kept_partition,
    require_stored,
)
from axes.warehouse.runs import record_run
from axes.warehouse.storage.store import (
    filled_files,
    maintenance_lock,
    open_store,
    require_idle,
    store_at,
)
from axes.warehouse.tables.columns import Table
from axes.warehouse.tables.schemas import TABLES
from axes.warehouse.writer import remove_rows

_COMMAND = "warehouse forget"


@dataclass(frozen=True)
class Forgotten:
    """How many rows of one table were deleted, or would be."""

    table: str
    rows: int


def forget(
    root: Path,
    *,
    models: Sequence[str] = (),
    prompt_sets: Sequence[str] = (),
    poolings: Sequence[str] = (),
    studies: Sequence[str] = (),
    is_dry_run: bool = False,
) -> list[Forgotten]:
    """Delete their rows, and the axes, studies and completions that were made from any of them.

    Prompts and activations of a prompt that another set holds too stay. Runs stay, as the record
    of what was done. Raises `ModelError`, `PromptError` or `DefinitionError` for a name that is not
    stored, and `RootError` while a job runs.
    """
    open_store(root)
    with maintenance_lock(root):
        require_idle(root)
        connection = connect(root)
        begun = _begun(connection)
        part = find_part(
            connection,
            models=_others(connection, "model", models, begun),
            prompt_sets=_others(connection, "prompt_set", prompt_sets, begun),
            poolings=_others(connection, "pooling", poolings, begun),
        )
        part.studies -= require_stored(connection, "study_id", sorted({*studies} - begun))
        tables = [table for name, table in reversed(TABLES.items()) if name != "runs"]
        left_out: Counter[str] = Counter()
        removed = {table.name: _removed(root, table, part, left_out) for table in tables}
        forgotten = [Forgotten(table.name, sum(removed[table.name].values())) for table in tables]
        if is_dry_run or not any(removed.values()):
            return forgotten
        parameters = {
            "models": sorted(models),
            "prompt_sets": sorted(prompt_sets),
            "poolings": sorted(poolings),
            "studies": sorted(studies),
            "rows_left_out": dict(sorted(left_out.items())),
        }
        with record_run(root, _COMMAND, parameters):
            for table in tables:
                for partition in removed[table.name]:
                    required = _required(table, part, partition)
                    is_removed = partial(_is_removed, required=required)
                    remove_rows(root, table.name, is_removed, partition=partition)
    return forgotten


def _begun(connection: Connection) -> set[str]:
    """The names in jobs like this that did not end: rows of them may be left without the name."""
    sql = """
        select distinct unnest(try_cast(parameters->kind as varchar[])) as name
        from
            (select try_cast(parameters as json) as parameters from runs
            where command = ? and status != 'finished'),
            unnest(['models', 'prompt_sets', 'poolings', 'studies']) as kinds (kind)
        """
    return set(query(connection, sql, [_COMMAND]).column("name").to_pylist())


def _others(
    connection: Connection, column: str, names: Sequence[str], begun: set[str]
) -> set[str] | None:
    """The stored values but for `names`, which are stored or `begun`; None without any."""
    if not names:
        return None
    require_stored(connection, column, sorted({*names} - begun))
    table = NAMES[column][0]
    stored = query(connection, f"select distinct {column} from {table}").column(0).to_pylist()
    return {*stored} - {*names}


def _removed(root: Path, table: Table, part: Part, left_out: Counter[str]) -> dict[str | None, int]:
    """Partition -> rows that go, where any do; `left_out` counts ingested ones by their run."""
    counts: Counter[str | None] = Counter()
    for value, path in filled_files(root, table):
        required = _required(table, part, value)
        source = store_at(root).source(path)
        with pq.ParquetFile(source, page_checksum_verification=True) as file:
            keys = file.read(columns=[*(required or ()), "run_id"])
        gone = keys.column("run_id").filter(_is_removed(keys, required))
        if len(gone):
            counts[value] += len(gone)
            if table.name in INGESTED:
                left_out.update(gone.to_pylist())
    return dict(counts)


_Required = Mapping[str, Collection[str]] | None


def _required(table: Table, part: Part, partition: str | None) -> _Required:
    """The conditions that a row of a partition meets to stay; None where none can stay."""
    return conditions(table, part) if kept_partition(table, part, partition) else None


def _is_removed(rows: pa.Table, required: _Required) -> pa.ChunkedArray:
    if required is None:
        return pa.chunked_array([pa.repeat(True, len(rows))])
    return pc.invert(is_kept(rows, required))
