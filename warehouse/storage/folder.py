"""Maintenance of a root on a disk: what `LocalStore` does besides reading and writing rows."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

from axes.warehouse.errors import RootError
from axes.warehouse.files import LOCKS, make_folder, sync_folder
from axes.warehouse.layout import (
    MARKER,
    empty_file,
    init_root,
    partition_folders,
    retired_folder,
    write_empty_file,
)
from axes.warehouse.ledger import (
    LEDGER,
    Record,
    locked,
    removing,
    replace_file,
    settle,
    sha256,
    table_lock,
    writing,
)
from axes.warehouse.tables.columns import Table
from axes.warehouse.tables.schemas import TABLES


def replace_files(
    root: Path,
    table: Table,
    merged: Mapping[Path, tuple[Path, Record]],
    originals: Mapping[Path, str],
) -> bool:
    """Exchange a partition's folder with one that has merged files; see `Store.replace`.

    The merged files lie in the new folder, where the others are linked to.
    """
    (building,) = {written.parent for written, _ in merged.values()}
    (folder,) = {path.parent for path in originals}
    with table_lock(root, table.name):
        with contextlib.suppress(FileNotFoundError):
            if any(sha256(path) != digest for path, digest in originals.items()):
                return False
        if not all(path.exists() for path in originals):
            return False
        for path in folder.iterdir():
            if path not in originals:
                _link(path, building / path.name)
        sync_folder(building)
        with (
            removing(root, table.name, list(originals)),
            writing(root, table.name, {path: each for path, (_, each) in merged.items()}),
        ):
            exchange(folder, building)
            sync_folder(folder.parent)
            sync_folder(building.parent)
        retired = retired_folder(root) / folder.relative_to(root)
        make_folder(root, retired.parent)
        building.rename(retired)
    return True


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


def set_aside(root: Path, table: Table, path: Path, aside: Path) -> None:
    """Move a file out of its table, if it is there; of a link, the link itself."""
    with table_lock(root, table.name):
        if path == empty_file(root, table):
            _move(root, path, aside)
            write_empty_file(root, table)
            return
        with removing(root, table.name, [path]):
            _move(root, path, aside)


def _move(root: Path, path: Path, aside: Path) -> None:
    if path.exists() or path.is_symlink():
        target = aside / path.relative_to(root)
        make_folder(root, target.parent)
        path.rename(target)
        sync_folder(target.parent)
        sync_folder(path.parent)


def adopt(root: Path, table: str, files: Mapping[Path, Record]) -> None:
    """Enter files that are in their places into the ledger."""
    with table_lock(root, table), writing(root, table, files):
        pass


def journal(root: Path) -> bytes | None:
    """What `write_journal` wrote; None where there is none."""
    with contextlib.suppress(FileNotFoundError):
        return _journal(root).read_bytes()
    return None


def write_journal(root: Path, content: bytes | None) -> None:
    """Keep what an unfinished repair has found; None where it has ended."""
    if content is None:
        _journal(root).unlink()
    else:
        replace_file(_journal(root), content)


def _journal(root: Path) -> Path:
    return root / LEDGER / "repair.json"


def clear(root: Path) -> Iterator[tuple[str, str, int]]:
    """Delete empty partitions, and rewrite the ledgers."""
    for table in TABLES.values():
        with table_lock(root, table.name):
            for path in partition_folders(root, table) if table.partition else ():
                with contextlib.suppress(OSError):
                    path.rmdir()  # Refuses a folder that holds anything.
                    yield "empty partition", path.relative_to(root).as_posix(), 0
            settle(root, table.name)


def foreign(root: Path, table: Table, stored: Sequence[Path]) -> Iterator[tuple[str, str]]:
    """What in the table's folder no view reads, and other Parquet tools stumble over."""
    folder = root / table.name
    if folder.is_symlink() or not folder.is_dir():
        yield table.name, "is no folder"
        return
    files = {*stored}
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        is_link, is_hidden = path.is_symlink(), any(part.startswith(".") for part in parts)
        if path in files or (is_hidden and not is_link):
            continue
        is_folder = path.is_dir() and len(parts) == 1 and _is_partition(table, path.name)
        if is_folder and not is_link:
            continue
        what = "is a link" if is_link else "does not belong into this folder"
        yield path.relative_to(root).as_posix(), what


def _is_partition(table: Table, name: str) -> bool:
    column, equals, value = name.partition("=")
    return bool(equals) and column == table.partition and bool(unquote(value))


@contextmanager
def filling(target: Path) -> Iterator[Path]:
    """A new warehouse next to `target`, which is renamed to it if the body does not fail."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        what = "is a warehouse, complete" if (target / MARKER).exists() else "is not empty"
        raise RootError(f"{target} exists and {what}: give another folder")
    # One name for all that make this target: what a killed one has left is made room of.
    building = target.parent / f".{target.name}.tmp"
    make_folder(building, building)
    refusal = f"{target} is being written by another job: let it end"
    with locked(building, "building", refusal=refusal):
        try:
            for path in building.iterdir():
                if path.name != LOCKS:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            init_root(building)
            yield building
            building.rename(target)
        finally:
            shutil.rmtree(building, ignore_errors=True)
