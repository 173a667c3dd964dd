"""Delete what is no longer read: `vacuum(root)`.

Only things that no query can see are touched: temporary files, folders that compaction and
migration retired, objects that no log names, tokens of jobs killed before they wrote the
completions, empty partitions and, on request, the quarantine.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from axes.warehouse.connection import Connection, connect_tables, query
from axes.warehouse.errors import RootError
from axes.warehouse.maintenance.compaction import BUILDING as COMPACTING
from axes.warehouse.maintenance.migration import BUILDING as MIGRATING
from axes.warehouse.storage.files import QUARANTINE, RETIRED, TEMPORARY
from axes.warehouse.storage.layout import NO_PARTITION, partition_value
from axes.warehouse.storage.store import Store, maintenance_lock, open_store
from axes.warehouse.tables.schemas import TABLES
from axes.warehouse.writer import WRITTEN_BEFORE_GENERATIONS, remove_uncommitted


@dataclass(frozen=True)
class Removal:
    """Something that was deleted, and the bytes it took."""

    kind: str
    path: str
    bytes: int


def vacuum(
    root: Path, *, older_than_hours: float = 1.0, empties_quarantine: bool = False
) -> list[Removal]:
    """Delete leftovers of at least that age; a job or a reader may still be at younger ones.

    Tokens without their completion are left where a job on that model is under way.
    """
    store = open_store(root)
    before = time.time() - 3600 * older_than_hours
    removed: list[Removal] = []
    with maintenance_lock(root):
        for kind, folder in (
            ("temporary", TEMPORARY),
            ("temporary", COMPACTING),
            ("temporary", MIGRATING),
            ("retired", RETIRED),
            *((("quarantine", QUARANTINE),) if empties_quarantine else ()),
        ):
            removed += _remove_old(store.home, kind, store.home / folder, before)
        models = connect_tables(root, "models")
        for table in WRITTEN_BEFORE_GENERATIONS:
            for partition in store.partitions(TABLES[table]):
                removed += _remove_orphans(store, models, table, partition)
        cleared = store.clear(older_than_hours, empties_quarantine=empties_quarantine)
        removed += [Removal(*item) for item in cleared]
    return removed


def _remove_old(home: Path, kind: str, folder: Path, before: float) -> Iterator[Removal]:
    for path in sorted(folder.glob("*")):
        # Of a folder that was renamed here, the change of its inode tells when.
        if path.lstat().st_ctime > before:
            continue
        size = _size(path)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
        yield Removal(kind, path.relative_to(home).as_posix(), size)


def _remove_orphans(store: Store, models: Connection, table: str, partition: Path) -> list[Removal]:
    """Tokens or projections without their completion, under the locks of their jobs."""
    model = partition_value(partition)
    # The versions of the model of which jobs may be under way.
    sql = "select distinct model_id from models where model = ? order by all"
    versions = query(models, sql, [model]).column("model_id").to_pylist()
    if model is None or model == NO_PARTITION or not versions:
        return []
    sizes = {path: store.size(path) for path in store.files(partition)}
    with ExitStack() as stack:
        try:
            for model_id in versions:
                stack.enter_context(store.locked(model_id, refusal="a job is under way"))
        except RootError:
            return []
        removed = remove_uncommitted(store.root, table, "generations", model)
    return [
        Removal("orphan tokens", path.relative_to(store.root).as_posix(), sizes.get(path, 0))
        for path in removed
    ]


def _size(path: Path) -> int:
    if path.is_dir() and not path.is_symlink():
        return sum(inner.lstat().st_size for inner in path.rglob("*") if not inner.is_dir())
    return path.lstat().st_size
