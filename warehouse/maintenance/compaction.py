"""Merge the small files of a partition into few, while readers read and jobs write.

The new folder is built beside the old one: merged files, and hard links to the files that stay.
Then the two are exchanged in one system call, so that whoever lists the partition sees the old
files or the new ones and never both or neither (docs/decisions/0011). The old folder is kept whole
among the retired ones, for readers that are still going through its names, until `vacuum`.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from axes.warehouse.errors import RootError
from axes.warehouse.files import make_folder, sync_folder
from axes.warehouse.layout import (
    EMPTY_FILE,
    parquet_files,
    partition_folders,
    require_root,
    retired_folder,
)
from axes.warehouse.ledger import (
    Record,
    maintenance_lock,
    read_ledger,
    removing,
    settle,
    sha256,
    table_lock,
    writing,
)
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
    require_root(root)
    done = []
    with maintenance_lock(root):
        _clear(root)
        for name in tables:
            table = TABLES[name]
            with table_lock(root, name):
                settle(root, name)
            for folder in partition_folders(root, table):
                batches = _batches(root, table, folder, file_bytes)
                if batches and (result := _compact_folder(root, table, folder, batches)):
                    done.append(result)
        _clear(root)
    return done


def _clear(root: Path) -> None:
    """Retire what a killed compaction left: half a folder, or one already exchanged."""
    for folder, _, _ in os.walk(root / BUILDING, topdown=False):
        with contextlib.suppress(OSError):
            Path(folder).rmdir()  # Refuses one that holds anything.
    if (root / BUILDING).exists():
        target = retired_folder(root)
        make_folder(root, target.parent)
        (root / BUILDING).rename(target)


def _batches(root: Path, table: Table, folder: Path, file_bytes: int) -> list[list[Path]]:
    """The small files that are to be merged, in groups of about `file_bytes`."""
    entries = read_ledger(root, table.name)
    is_final = _finality(root, table, folder)
    batches: list[list[Path]] = [[]]
    size = 0
    for path in parquet_files(folder):
        entry = entries.get(path.relative_to(root).as_posix())
        is_small = path.stat().st_size < file_bytes // 2
        if path.name == EMPTY_FILE or entry is None or not is_small or not is_final(path):
            continue
        if batches[-1] and size + path.stat().st_size > file_bytes:
            batches.append([])
            size = 0
        batches[-1].append(path)
        size += path.stat().st_size
    return [batch for batch in batches if len(batch) > 1]


def _finality(root: Path, table: Table, folder: Path) -> Callable[[Path], bool]:
    """Whether a file's rows stay as they are: not the tokens, or the row, of a job under way."""
    if table.name == "runs":
        return lambda path: "running" not in column_values(path, "status")
    if table.name in WRITTEN_BEFORE_GENERATIONS:
        files = parquet_files(root / "generations" / folder.name)
        completions = set().union(*(column_values(path, "generation_id") for path in files))
        return lambda path: column_values(path, "generation_id") <= completions
    return lambda path: True


def _compact_folder(
    root: Path, table: Table, folder: Path, batches: list[list[Path]]
) -> Compaction | None:
    """Build the new folder and exchange it; None where a job changed a merged file meanwhile."""
    building = root / BUILDING / folder.relative_to(root)
    make_folder(root, building)
    merged: dict[Path, Record] = {}
    originals: dict[Path, str] = {}
    for batch in batches:
        digests = _require_as_written(root, table, batch)
        if digests is None:
            return None
        originals |= digests
        name = f"{content_key('compacted', list(digests.values()))}.parquet"
        merged[folder / name] = write_parquet(building / name, table, merged_groups(table, batch))
    sizes = [path.stat().st_size for path in originals]
    with table_lock(root, table.name):
        if _require_as_written(root, table, list(originals)) != originals:
            return None
        before = len(parquet_files(folder))
        for path in folder.iterdir():
            if path not in originals:
                _link(path, building / path.name)
        sync_folder(building)
        with (
            removing(root, table.name, list(originals)),
            writing(root, table.name, merged),
        ):
            exchange(folder, building)
            sync_folder(folder.parent)
            sync_folder(building.parent)
        retired = retired_folder(root) / folder.relative_to(root)
        make_folder(root, retired.parent)
        building.rename(retired)
    return Compaction(
        partition=folder.relative_to(root).as_posix(),
        files_before=before,
        files_after=before - len(originals) + len(merged),
        bytes_before=sum(sizes),
        bytes_after=sum(known.size for known in merged.values()),
    )


def _require_as_written(root: Path, table: Table, paths: list[Path]) -> dict[Path, str] | None:
    """Path -> digest; None where a job has replaced or removed one since it was listed.

    Raises `RootError` for one whose bytes are not those that were written: merging it would give
    what is broken a sound checksum.
    """
    entries = read_ledger(root, table.name)
    digests = {}
    for path in paths:
        name = path.relative_to(root).as_posix()
        with contextlib.suppress(FileNotFoundError):
            digests[path] = sha256(path)
        entry = entries.get(name)
        if entry is None or path not in digests:
            return None
        if digests[path] not in {known.sha256 for known in entry.records}:
            raise RootError(
                f"{path} is not as it was written: run `axes warehouse check`, then "
                "`axes warehouse repair`, and compact again"
            )
    return digests


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


def _link(path: Path, target: Path) -> None:
    if path.is_dir():
        raise RootError(f"{path} does not belong there: move it away, and compact again")
    os.link(path, target, follow_symlinks=False)


def exchange(first: Path, second: Path) -> None:
    """Let two folders change places in one step (`renameat2`); `RootError` where it cannot."""
    libc = ctypes.CDLL(None, use_errno=True)
    rename = getattr(libc, "renameat2", None)
    here, swap = -100, 2
    if rename is not None:
        if rename(here, os.fsencode(first), here, os.fsencode(second), swap) == 0:
            return
        reason = os.strerror(ctypes.get_errno())
    else:
        reason = "this system has no renameat2"
    raise RootError(
        f"{first} cannot be exchanged with its compacted folder in one step ({reason}), and "
        "readers would see rows twice or not at all: compact a copy on a local Linux disk"
    )
