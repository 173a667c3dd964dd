"""Add the rows of other warehouses to a root, by key: `merge(root, sources)`.

Parts of a job from several machines overlap, or were compacted, so that equal rows lie in files of
other names. A row whose key is stored is passed over, and the stored one stays. A merge that was
killed is ended by merging again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from axes.warehouse.errors import RootError
from axes.warehouse.maintenance.check import UNREADABLE, inspect_files
from axes.warehouse.maintenance.subset import INGESTED
from axes.warehouse.runs import record_run
from axes.warehouse.storage.layout import (
    EMPTY_FILE,
    NO_PARTITION,
    partition_folder,
    partition_value,
)
from axes.warehouse.storage.ledger import sha256
from axes.warehouse.storage.roots import resolved
from axes.warehouse.storage.store import (
    MaintainedStore,
    Store,
    maintained,
    maintenance_lock,
    open_store,
    require_idle,
    store_at,
)
from axes.warehouse.tables.columns import Table
from axes.warehouse.tables.schemas import TABLES
from axes.warehouse.writer import content_key, data_file, write_rows


@dataclass(frozen=True)
class Merged:
    """The rows of one table of a source that were added, and those whose keys were stored."""

    source: str
    table: str
    rows_added: int
    rows_stored: int


def merge(root: Path, sources: Sequence[Path]) -> list[Merged]:
    """Add the rows of `sources`, in order, to `root`, which is made if it is absent.

    Raises `RootError`, before anything is added, for a source that is not sound, a prompt set of
    the same name with other prompts, or a job under way.
    """
    store_at(root).init()
    open_store(root)
    for source in sources:
        _require_mergeable(root, source)
    done = []
    with maintenance_lock(root):
        require_idle(root)
        for source in sources:
            try:
                done += _merge(root, source)
            except UNREADABLE as error:
                message = f"{source} cannot be read ({error}): run `axes warehouse check`"
                raise RootError(message) from error
    return done


def _merge(root: Path, source: Path) -> list[Merged]:
    left_out: Counter[str] = Counter()
    with record_run(root, "warehouse merge", {"source": source.name}) as run:
        stores = store_at(root), maintained(source)
        tables = [_merge_table(*stores, table, left_out) for table in TABLES.values()]
        run.rows = sum(item.rows_added for item in tables)
        run.parameters = {**run.parameters, "rows_left_out": dict(sorted(left_out.items()))}
    return tables


def _require_mergeable(root: Path, source: Path) -> None:
    here, there, table = store_at(root), open_store(source), TABLES["prompts"]
    if resolved(source) == resolved(root):
        raise RootError(f"{source} is the warehouse itself: name others")
    if findings := inspect_files(source, is_quick=True):
        raise RootError(
            f"{findings[0].path} of {source} {findings[0].what}: run `axes warehouse repair --root "
            f"{source}` first"
        )
    columns = ["prompt_id", "position"]
    for folder in there.partitions(table):
        stored = _read(here, table, here.files(root / folder.relative_to(source)), columns)
        other = _read(there, table, there.files(folder), columns)
        if len(stored) and not stored.sort(columns).equals(other.sort(columns)):
            raise RootError(
                f"the prompt set {partition_value(folder)} of {source} has other prompts than "
                f"that of {root}: import one of them under another name"
            )


def _merge_table(
    here: Store, there: MaintainedStore, table: Table, left_out: Counter[str]
) -> Merged:
    key = [name for name in table.key if name != table.partition]
    added = stored_count = 0
    for folder in there.partitions(table):
        value = partition_value(folder)
        if value == NO_PARTITION:
            continue
        files = here.files(partition_folder(here.root, table, value))
        stored = _read(here, table, files, [*key, "run_id"])
        for path in there.files(folder):
            if path.name == EMPTY_FILE:
                continue
            keys = _read(there, table, [path], stored.columns).with_row_index("row")
            new = keys.join(stored, on=key, how="anti", nulls_equal=True)
            added, stored_count = added + len(new), stored_count + len(keys) - len(new)
            if table.name in INGESTED:
                # A job's count of rows includes those that another job has stored here already.
                other = keys.join(stored, on=stored.columns, how="anti", nulls_equal=True)
                left_out.update(other.join(new, on="row", how="anti")["run_id"].to_list())
            if len(new):
                with there.local(path) as file:
                    name, rows = there.stem(path), new["row"].sort().to_numpy()
                    _copy(here, table, file, name, value, rows)
                stored = pl.concat([stored, new.drop("row")])
    return Merged(there.root.name, table.name, added, stored_count)


def _read(
    store: Store, table: Table, paths: Sequence[Path], columns: Sequence[str]
) -> pl.DataFrame:
    """Some columns of some files."""
    columns = list(dict.fromkeys(columns))
    parts = [table.file_schema.empty_table().select(columns)]
    for path in paths:
        with pq.ParquetFile(store.source(path), page_checksum_verification=True) as file:
            parts.append(file.read(columns=columns).select(columns))
    return pl.DataFrame(pa.concat_tables(parts))


def _copy(
    store: Store, table: Table, file: Path, name: str, value: str | None, rows: np.ndarray
) -> None:
    """Copy the rows with these numbers, under the file's name if it is free and they are all."""
    with pq.ParquetFile(file, page_checksum_verification=True) as parquet:
        footer = parquet.metadata
        sizes = [footer.row_group(index).num_rows for index in range(footer.num_row_groups)]
        masks = np.split(np.isin(np.arange(sum(sizes)), rows), np.cumsum(sizes)[:-1])
        is_taken = store.has(data_file(store.root, table.name, name, value))
        if len(rows) < sum(sizes) or is_taken:
            name = content_key("merged", sha256(file), rows.tolist())
        groups = (
            parquet.read_row_group(index).filter(pa.array(mask))
            for index, mask in enumerate(masks)
            if mask.any()
        )
        write_rows(store.root, table.name, groups, name=name, partition=value)
