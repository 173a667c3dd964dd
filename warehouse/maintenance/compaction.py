"""Merge the small files of a partition into few, while readers read and jobs write.

On a disk the new folder is built next to the old one: merged files, and hard links to those that
stay. Then the two are exchanged in one system call, so that a reader of the partition sees the
old files or the new ones and never both or neither (docs/decisions/0011). The old folder is kept
whole among the retired ones, for readers that are still going through its names, until `vacuum`.
On an object store one commit of the log has the merged files in and the small ones out.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from axes.warehouse.errors import RootError
from axes.warehouse.storage.files import make_folder
from axes.warehouse.storage.layout import (
    EMPTY_FILE,
    partition_folder,
    partition_value,
    retired_folder,
)
from axes.warehouse.storage.ledger import Record, sha256
from axes.warehouse.storage.store import MaintainedStore, maintenance_lock, open_store
from axes.warehouse.tables.columns import Table
from axes.warehouse.tables.schemas import TABLES
from axes.warehouse.writer import (
    WRITTEN_BEFORE_GENERATIONS,
    column_values,
    content_key,
    write_parquet,
)

BUILDING = ".compaction"

# Only tables whose files nobody looks up by name: the name of a file of prompts, labels, models,
# alignments or evaluations is the key by which a job finds, replaces or resumes it.
COMPACTED = (
    "activations",
    "prompt_tokens",
    "generations",
    "generation_tokens",
    "projections",
    "token_projections",
    "intervention_outcomes",
    "runs",
)
FILE_BYTES = 512 << 20

# One row group holds one of these, in this order: one layer is read without the bytes of others.
_GROUPED_BY = ("layer", "site", "pooling", "template", "model_id")
_ROW_GROUP_BYTES = 64 << 20


@dataclass(frozen=True)
class Compaction:
    """One compacted partition, before and after."""

    partition: str
    files_before: int
    files_after: int
    bytes_before: int
    bytes_after: int


def compact(
    root: Path, tables: Sequence[str] = COMPACTED, *, file_bytes: int = FILE_BYTES
) -> list[Compaction]:
    """Merge files of less than half of `file_bytes` into files of about that size.

    Partitions with nothing to merge are left alone and out of the result. A compaction that was
    killed is started again. Raises `RootError` for a file that is not as it was written, or where
    the file system cannot exchange two folders.
    """
    store, done = open_store(root), []
    with maintenance_lock(root):
        _clear(store.home)
        for name in tables:
            table = TABLES[name]
            with store.turn(name):
                store.settle(name)
            for folder in store.partitions(table):
                batches = _batches(store, table, folder, file_bytes)
                if batches and (result := _compact_folder(store, table, folder, batches)):
                    done.append(result)
        _clear(store.home)
    return done


def _clear(home: Path) -> None:
    """Retire what a killed compaction left: half a folder, or one already exchanged."""
    for folder, _, _ in os.walk(home / BUILDING, topdown=False):
        with contextlib.suppress(OSError):
            Path(folder).rmdir()  # Refuses one that holds anything.
    if (home / BUILDING).exists():
        target = retired_folder(home)
        make_folder(home, target.parent)
        (home / BUILDING).rename(target)


def _batches(
    store: MaintainedStore, table: Table, folder: Path, file_bytes: int
) -> list[list[Path]]:
    """The small files that are to be merged, in groups of about `file_bytes`."""
    entries = store.entries(table.name)
    is_final = _finality(store, table, folder)
    batches: list[list[Path]] = [[]]
    total = 0
    for path in store.files(folder):
        size = store.size(path)
        is_listed = path.relative_to(store.root).as_posix() in entries
        is_small = size < file_bytes // 2
        if path.name == EMPTY_FILE or not is_listed or not is_small or not is_final(path):
            continue
        if batches[-1] and total + size > file_bytes:
            batches.append([])
            total = 0
        batches[-1].append(path)
        total += size
    return [batch for batch in batches if len(batch) > 1]


def _finality(store: MaintainedStore, table: Table, folder: Path) -> Callable[[Path], bool]:
    """Whether a file's rows stay as they are: not the tokens, or the row, of a job under way."""
    if table.name == "runs":
        return lambda path: "running" not in column_values(store.source(path), "status")
    if table.name in WRITTEN_BEFORE_GENERATIONS:
        model = partition_value(folder)
        files = store.files(partition_folder(store.root, TABLES["generations"], model))
        key, source = "generation_id", store.source
        completions = set().union(*(column_values(source(path), key) for path in files))
        return lambda path: column_values(source(path), key) <= completions
    return lambda path: True


def _compact_folder(
    store: MaintainedStore, table: Table, folder: Path, batches: list[list[Path]]
) -> Compaction | None:
    """Build the merged files and exchange them; None where a job changed a small one meanwhile."""
    building = store.home / BUILDING / folder.relative_to(store.root)
    make_folder(store.home, building)
    merged: dict[Path, tuple[Path, Record]] = {}
    originals: dict[Path, str] = {}
    before, bytes_before = len(store.files(folder)), 0
    for batch in batches:
        with contextlib.ExitStack() as stack:
            try:
                files = [stack.enter_context(store.local(path)) for path in batch]
                digests = [sha256(file) for file in files]
            except FileNotFoundError:
                return None
            if not _is_as_written(store, table, batch, digests):
                return None
            originals.update(zip(batch, digests, strict=True))
            bytes_before += sum(file.stat().st_size for file in files)
            written = building / f"{content_key('compacted', digests)}.parquet"
            record = write_parquet(written, table, merged_groups(table, files))
            merged[folder / written.name] = written, record
    if not store.replace(table, merged, originals):
        return None
    return Compaction(
        partition=folder.relative_to(store.root).as_posix(),
        files_before=before,
        files_after=before - len(originals) + len(merged),
        bytes_before=bytes_before,
        bytes_after=sum(record.size for _, record in merged.values()),
    )


def _is_as_written(
    store: MaintainedStore, table: Table, paths: Sequence[Path], digests: Sequence[str]
) -> bool:
    """Whether files are those of the ledger; not where a job has replaced one since.

    Raises `RootError` for one whose bytes are not those that were written: merging it would give
    what is broken a sound checksum.
    """
    entries = store.entries(table.name)
    for path, digest in zip(paths, digests, strict=True):
        entry = entries.get(path.relative_to(store.root).as_posix())
        if entry is None:
            return False
        if not entry.has(digest):
            raise RootError(
                f"{path} is not as it was written: run `axes warehouse check`, then "
                "`axes warehouse repair`, and compact again"
            )
    return True


@dataclass(frozen=True)
class _RowGroup:
    """A row group of a small file; `is_mixed` where it has rows of other keys, too."""

    path: Path
    footer: pq.FileMetaData
    index: int
    is_mixed: bool


def merged_groups(table: Table, paths: Sequence[Path]) -> Iterator[pa.Table]:
    """The rows of some files as row groups, each of one layer, site and pooling, by layer.

    Holds one row group in memory at a time.
    """
    columns = [name for name in _GROUPED_BY if name in table.file_schema.names]
    columns = columns if table.vector_columns else []
    # Key (layer, site, ...) -> the row groups with rows of it, in the order of the files. A mixed
    # row group stands under each of its keys and is read once for each.
    groups_by_key: dict[tuple, list[_RowGroup]] = {}
    for path in paths:
        footer = pq.read_metadata(path)
        for index in range(footer.num_row_groups):
            keys = _group_keys(path, footer, index, columns)
            for key in keys:
                group = _RowGroup(path, footer, index, is_mixed=len(keys) > 1)
                groups_by_key.setdefault(key, []).append(group)
    for key, groups in sorted(groups_by_key.items()):
        buffer: list[pa.Table] = []
        size = 0
        for group in groups:
            buffer.append(_rows_of(group, columns, key))
            size += buffer[-1].nbytes
            if size >= _ROW_GROUP_BYTES:
                yield pa.concat_tables(buffer)
                buffer, size = [], 0
        if buffer:
            yield pa.concat_tables(buffer)


def _group_keys(path: Path, footer: pq.FileMetaData, index: int, columns: list[str]) -> list[tuple]:
    """The keys in a row group: by its statistics if each column has one value, else by reading."""
    group = footer.row_group(index)
    leaves = [group.column(place) for place in range(group.num_columns)]
    statistics = {leaf.path_in_schema: leaf.statistics for leaf in leaves}
    ranges = [statistics.get(name) for name in columns]
    if all(
        limits is not None and limits.has_min_max and limits.min == limits.max for limits in ranges
    ):
        return [tuple(limits.min for limits in ranges if limits is not None)]
    with pq.ParquetFile(path, metadata=footer) as file:
        keys = file.read_row_group(index, columns=columns).group_by(columns).aggregate([])
    return sorted(tuple(row[name] for name in columns) for row in keys.to_pylist())


def _rows_of(group: _RowGroup, columns: list[str], key: tuple) -> pa.Table:
    """The rows of one key in a row group."""
    options = {"metadata": group.footer, "page_checksum_verification": True}
    with pq.ParquetFile(group.path, **options) as file:
        table = file.read_row_group(group.index)
    if not group.is_mixed:
        return table
    keys = zip(*(table.column(name).to_pylist() for name in columns), strict=True)
    return table.filter(pa.array([row_key == key for row_key in keys]))
