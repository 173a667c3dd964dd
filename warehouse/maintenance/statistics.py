"""How much lies where: files, rows and bytes per table and partition, from footers only."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from axes.warehouse.errors import RootError
from axes.warehouse.storage.store import filled_files, store_at
from axes.warehouse.tables.schemas import TABLES


@dataclass(frozen=True)
class Extent:
    """What one partition holds; `smallest_bytes` shows whether compaction is worth while."""

    table: str
    partition: str | None
    files: int
    row_groups: int
    rows: int
    bytes: int
    smallest_bytes: int


def statistics(root: Path) -> list[Extent]:
    """One `Extent` per partition that holds files; a file without rows is left out.

    Raises `RootError` for a file whose footer cannot be read.
    """
    store = store_at(root)  # Nothing that only reads imports the ledger.
    store.require()
    store.refresh(*TABLES)
    extents = []
    for table in TABLES.values():
        grouped: dict[str | None, list[tuple[int, int, int]]] = defaultdict(list)
        for value, path in filled_files(root, table):
            try:
                footer, size = pq.read_metadata(store.source(path)), store.size(path)
            except FileNotFoundError:
                continue  # Merged or replaced since it was listed.
            except (OSError, pa.ArrowException) as error:
                raise RootError(f"{path} cannot be read: run `axes warehouse check`") from error
            grouped[value].append((footer.num_row_groups, footer.num_rows, size))
        for value, files in sorted(grouped.items(), key=lambda item: item[0] or ""):
            groups, rows, sizes = zip(*files, strict=True)
            extents.append(
                Extent(
                    table=table.name,
                    partition=value,
                    files=len(files),
                    row_groups=sum(groups),
                    rows=sum(rows),
                    bytes=sum(sizes),
                    smallest_bytes=min(sizes),
                )
            )
    return extents
