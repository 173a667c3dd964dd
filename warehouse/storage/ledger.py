"""Who may change the files of a root, and which files there ought to be.

Locks (ROOT/.locks) make jobs that would get in each other's way take turns. They are the kernel's,
so those of a killed process are free at once.

Ledgers (ROOT/.ledger/<table>.jsonl) have one line per event. Parquet files say nothing about their
neighbours: a deleted, copied or edited file leaves a data set that reads well. So a write is
recorded before and after its rename, a removal before and after its unlink, each under the table's
lock. A process killed between the two leaves an entry that allows both outcomes; nothing that a
kill can cause is ever taken for damage.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NotRequired, TypedDict
from urllib.parse import quote

from filelock import AcquireReturnProxy, FileLock, Timeout

from axes.warehouse.errors import RootError
from axes.warehouse.render import echo
from axes.warehouse.storage.files import (
    LOCKS,
    TEMPORARY,
    inside,
    make_folder,
    open_regular,
    parse_json,
    read_file,
    replacing,
    require_no_link,
    sync_folder,
)

LEDGER = ".ledger"

# Seconds to wait for a lock without a word: writing a file takes less.
_PATIENCE = 10.0


@contextmanager
def locked(
    root: Path, name: str, *, notice: str | None = None, refusal: str | None = None
) -> Iterator[None]:
    """Hold the lock called `name`, waiting while another process holds it.

    A wait prints `notice` first, or after some seconds which lock it is; with a `refusal`,
    `RootError` is raised with it instead. `RootError` too where the lock cannot be made, as on a
    read-only root.
    """
    path = root / LOCKS / f"{quote(name, safe='@')}.lock"
    lock = FileLock(path)
    try:
        make_folder(root, path.parent)
        require_no_link(root, path)
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            if refusal is not None:
                raise RootError(refusal) from error
            acquire(lock, notice)
    except OSError as error:
        raise RootError(f"cannot write {path}: {error}") from error
    try:
        yield
    finally:
        lock.release()


def acquire(lock: FileLock, notice: str | None = None) -> AcquireReturnProxy:
    """Take a lock, in a `with`; where that takes time, say so: a stopped process keeps its locks.

    `notice` is said at once, for a lock that another process is known to hold.
    """
    if notice is None:
        with suppress(Timeout):
            return lock.acquire(timeout=_PATIENCE)
        notice = f"waiting for {lock.lock_file}: another process holds it, or was stopped with it"
    echo(notice, err=True)
    return lock.acquire()


def held_locks(root: Path) -> list[str]:
    """The names of the locks that are held at this instant."""
    held = []
    for path in sorted((root / LOCKS).glob("*.lock")):
        try:
            with FileLock(path, timeout=0):
                pass
        except Timeout:
            held.append(path.stem)
        except OSError as error:
            raise RootError(f"cannot open {path}: {error}") from error
    return held


def table_lock(root: Path, table: str) -> AbstractContextManager[None]:
    """Held while files of a table are renamed or removed; readers never wait for it."""
    return locked(root, table)


@dataclass(frozen=True)
class Record:
    """A file as it was written; `runs` counts its rows by the job that made them."""

    rows: int
    size: int
    sha256: str
    runs: Mapping[str, int]


@dataclass
class Entry:
    """What may lie under one path: usually one record, two if a replacement may have been killed.

    `is_due` says that a file must be stored: its last write has ended.
    """

    records: list[Record] = field(default_factory=list)
    is_due: bool = False

    def has(self, digest: str) -> bool:
        """Whether a file with this SHA-256 was written; records may have its first digits."""
        return any(digest.startswith(record.sha256) for record in self.records)

    @property
    def runs(self) -> dict[str, int]:
        """Rows by job of the last record."""
        return dict(self.records[-1].runs)


class _Event(TypedDict):
    """One line of a ledger: `writing` has all of a record, `written` its checksum alone."""

    event: Literal["writing", "written", "removing", "removed"]
    file: str
    rows: NotRequired[int]
    size: NotRequired[int]
    sha256: NotRequired[str]
    runs: NotRequired[Mapping[str, int]]


def ledger_file(root: Path, table: str) -> Path:
    """The file with the events of a table."""
    return root / LEDGER / f"{table}.jsonl"


def record(path: Path, rows: int, runs: Mapping[str, int]) -> Record:
    """The record of a file that lies at `path`."""
    return Record(rows, path.stat().st_size, sha256(path), dict(runs))


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hex."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_ledger(root: Path, table: str) -> dict[str, Entry]:
    """Path below the root -> entry. A line that is torn, or no event, is passed over.

    Raises `RootError` where the ledger is no regular file.
    """
    entries: dict[str, Entry] = {}
    try:
        lines = read_file(ledger_file(root, table)).splitlines()
    except FileNotFoundError:
        return entries
    for line in lines:
        try:
            event = parse_json(line)
            inside(root, event["file"])
            _apply(entries, event)
        except (RootError, ValueError, KeyError, TypeError, AttributeError):
            continue
    return entries


def _apply(entries: dict[str, Entry], event: _Event) -> None:
    name = event["file"]
    if event["event"] == "writing":
        written = Record(event["rows"], event["size"], event["sha256"], event["runs"])
        entries.setdefault(name, Entry()).records.append(written)
    elif event["event"] == "written":
        entry = entries[name]
        same = [stored for stored in entry.records if stored.sha256 == event["sha256"]]
        entry.records = same[-1:] or entry.records
        entry.is_due = True
    elif event["event"] == "removing" and name in entries:
        entries[name].is_due = False
    elif event["event"] == "removed":
        entries.pop(name, None)


@contextmanager
def writing(root: Path, table: str, files: Mapping[Path, Record]) -> Iterator[None]:
    """Record that the body puts these files in place; the caller holds the table's lock."""
    names = {_below(root, path): stored for path, stored in files.items()}
    _append(root, table, [_writing(*item) for item in names.items()], is_durable=True)
    yield
    _append(root, table, [_written(*item) for item in names.items()])


@contextmanager
def removing(root: Path, table: str, paths: list[Path]) -> Iterator[None]:
    """Record that the body takes these files away; the caller holds the table's lock."""
    names = [_below(root, path) for path in paths]
    _append(root, table, [{"event": "removing", "file": name} for name in names], is_durable=True)
    yield
    _append(root, table, [{"event": "removed", "file": name} for name in names])


def settle(root: Path, table: str) -> None:
    """Look which outcome each killed process left; the caller holds the table's lock.

    The ledger is then rewritten with one entry per file; each of them is due.
    """
    entries = read_ledger(root, table)
    if not entries:
        return
    events: list[_Event] = []
    for name, entry in sorted(entries.items()):
        path = root / name
        if not path.is_file() and not entry.is_due:
            continue
        if len(entry.records) > 1 and path.is_file():
            digest = sha256(path)
            same = [stored for stored in entry.records if stored.sha256 == digest]
            entry.records = same[:1] or entry.records
        first, *others = entry.records
        events += [_writing(name, first), _written(name, first)]
        events += [_writing(name, stored) for stored in others]
    replace_file(ledger_file(root, table), _encode(events))


def write_ledger(path: Path, records: Mapping[str, Record]) -> None:
    """Replace a table's ledger by one of files that are all in their places."""
    items = sorted(records.items())
    events = [event(*item) for item in items for event in (_writing, _written)]
    replace_file(path, _encode(events))


def _writing(name: str, stored: Record) -> _Event:
    return {
        "event": "writing",
        "file": name,
        "rows": stored.rows,
        "size": stored.size,
        "sha256": stored.sha256,
        "runs": stored.runs,
    }


def _written(name: str, stored: Record) -> _Event:
    return {"event": "written", "file": name, "sha256": stored.sha256}


def replace_file(path: Path, content: bytes) -> None:
    """Replace a file below ROOT/.ledger."""
    root = path.parent.parent
    make_folder(root, path.parent)
    with replacing(path, make_folder(root, root / TEMPORARY)) as temporary:
        temporary.write_bytes(content)


def _append(root: Path, table: str, events: Iterable[_Event], *, is_durable: bool = False) -> None:
    path = ledger_file(root, table)
    make_folder(root, path.parent)
    is_new = not require_no_link(root, path).exists()
    with path.open("ab+") as file:
        if not is_new and file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":  # Torn by a power cut: the next line must not join it.
                file.write(b"\n")
        file.write(_encode(events))
        file.flush()
        if is_durable:
            os.fsync(file.fileno())
    if is_new:
        sync_folder(path.parent)


def _encode(events: Iterable[_Event]) -> bytes:
    return b"".join(json.dumps(event, sort_keys=True).encode() + b"\n" for event in events)


def _below(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()
