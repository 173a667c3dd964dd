"""Maintenance of a root on a disk: what its store does besides reading and writing rows.

The commands of maintenance hold `maintenance_lock`. `RemoteStore` has the same methods.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from axes.warehouse.errors import RootError
from axes.warehouse.storage import ledger
from axes.warehouse.storage.files import LOCKS, make_folder, sync_folder
from axes.warehouse.storage.layout import (
    MARKER,
    empty_file,
    init_root,
    partition_folders,
    retired_folder,
    write_empty_file,
)
from axes.warehouse.storage.ledger import Entry, Record, read_ledger, removing, sha256, writing
from axes.warehouse.storage.store import LocalStore, data_files
from axes.warehouse.tables.columns import Table
from axes.warehouse.tables.schemas import TABLES


@dataclass(frozen=True)
class Folder(LocalStore):
    """The store of a folder, to be maintained."""

    def local(self, path: Path) -> AbstractContextManager[Path]:
        """A file of `files` on the disk while the body runs; raises `FileNotFoundError`."""
        return nullcontext(path)

    def stem(self, path: Path) -> str:
        """The name that `write_rows` was given for a file of `files`."""
        return path.stem

    def stored(self, table: Table) -> dict[str, int]:
        """Names below the root and bytes of the table's files that are there."""
        sizes = {}
        for path in data_files(self.root, table):
            with contextlib.suppress(FileNotFoundError):
                sizes[self._name(path)] = path.stat().st_size
        return sizes

    def entries(self, table: str) -> dict[str, Entry]:
        """Name below the root -> the file that there ought to be."""
        return read_ledger(self.root, table)

    def foreign(self, table: Table) -> Iterator[tuple[str, str]]:
        """Name and fault of what no view reads, and other Parquet tools stumble over."""
        folder, files = self.root / table.name, {*data_files(self.root, table)}
        if folder.is_symlink() or not folder.is_dir():
            yield table.name, "is not a folder"
            return
        for path in sorted(folder.rglob("*")):
            parts = path.relative_to(folder).parts
            is_link, is_hidden = path.is_symlink(), any(part.startswith(".") for part in parts)
            if path in files or (is_hidden and not is_link):
                continue
            is_folder = path.is_dir() and len(parts) == 1 and _is_partition(table, path.name)
            if is_folder and not is_link:
                continue
            yield self._name(path), "is a link" if is_link else "does not belong into this folder"

    def replace(
        self,
        table: Table,
        merged: Mapping[Path, tuple[Path, Record]],
        originals: Mapping[Path, str],
    ) -> bool:
        """Commit local files in the place of files of the same partition (path -> digest).

        A reader sees all of the ones or of the others. False, and nothing is done, where an
        original is no longer as it was. The merged files lie in a new folder; the others are
        linked to there.
        """
        (building,) = {written.parent for written, _ in merged.values()}
        (folder,) = {path.parent for path in originals}
        with self.turn(table.name):
            for path, digest in originals.items():
                if not path.exists() or sha256(path) != digest:
                    return False
            for path in folder.iterdir():
                if path not in originals:
                    _link(path, building / path.name)
            sync_folder(building)
            with (
                removing(self.root, table.name, list(originals)),
                writing(self.root, table.name, {path: each for path, (_, each) in merged.items()}),
            ):
                exchange(folder, building)
                sync_folder(folder.parent)
                sync_folder(building.parent)
            retired = retired_folder(self.root) / folder.relative_to(self.root)
            make_folder(self.root, retired.parent)
            building.rename(retired)
        return True

    def set_aside(self, table: Table, path: Path, aside: Path) -> None:
        """Take a file out of its table, to below `aside`."""
        with self.turn(table.name):
            if path == empty_file(self.root, table):
                self._move(path, aside)
                write_empty_file(self.root, table)
                return
            with removing(self.root, table.name, [path]):
                self._move(path, aside)

    def _move(self, path: Path, aside: Path) -> None:
        """Move a file, if it is there; of a link, the link itself."""
        if path.exists() or path.is_symlink():
            target = aside / path.relative_to(self.root)
            make_folder(self.root, target.parent)
            path.rename(target)
            sync_folder(target.parent)
            sync_folder(path.parent)

    def adopt(self, table: str, files: Mapping[Path, Record]) -> None:
        """Commit files as they are there."""
        with self.turn(table), writing(self.root, table, files):
            pass

    def settle(self, table: str) -> None:
        """Look which outcome each killed process has left; in the table's turn."""
        ledger.settle(self.root, table)

    def clear(self, hours: float, *, empties_quarantine: bool) -> Iterator[tuple[str, str, int]]:
        """Delete what no query has read for so long: its kind, its name, its bytes.

        Here empty partitions alone; the ledgers are rewritten.
        """
        for table in TABLES.values():
            with self.turn(table.name):
                for path in partition_folders(self.root, table) if table.partition else ():
                    with contextlib.suppress(OSError):
                        path.rmdir()  # Refuses a folder that holds anything.
                        yield "empty partition", self._name(path), 0
                self.settle(table.name)

    @contextmanager
    def filling(self) -> Iterator[Path]:
        """A root to fill, which is this one, a new warehouse, if the body does not fail."""
        target = self.root
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            what = "is a warehouse, complete" if (target / MARKER).exists() else "is not empty"
            raise RootError(f"{target} exists and {what}: give another folder")
        # One name for all that make this target: what a killed one has left is made room of.
        building = target.parent / f".{target.name}.tmp"
        make_folder(building, building)
        refusal = f"{target} is being written by another job: let it end"
        with ledger.locked(building, "building", refusal=refusal):
            try:
                for path in building.iterdir():
                    if path.name != LOCKS:
                        shutil.rmtree(path) if path.is_dir() else path.unlink()
                init_root(building)
                yield building
                building.rename(target)
            finally:
                shutil.rmtree(building, ignore_errors=True)

    def held_locks(self) -> list[str]:
        """The names of the locks that are held at this instant."""
        return ledger.held_locks(self.root)

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()


def _is_partition(table: Table, name: str) -> bool:
    column, equals, value = name.partition("=")
    return bool(equals) and column == table.partition and bool(unquote(value))


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
