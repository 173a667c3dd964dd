"""Which files there ought to be: one line per event in ROOT/.ledger/<table>.jsonl.

Parquet files say nothing about their neighbours: a deleted, copied or edited file leaves a data set
that reads well. So a write is recorded before and after its rename, a removal before and after its
unlink, each under the table's lock. A process killed between the two leaves an entry that allows
both outcomes; nothing that a kill can cause is ever taken for damage.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from axes.warehouse.locks import locked

LEDGER = ".ledger"


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

    `is_due` says that a file must be there: its last write is known to have ended.
    """

    records: list[Record] = field(default_factory=list)
    is_due: bool = False

    @property
    def runs(self) -> dict[str, int]:
        """Rows by job of the last record."""
        return dict(self.records[-1].runs)


def read_ledger(root: Path, table: str) -> dict[str, Entry]:
    """Path below the root -> entry. A line torn by a power cut is passed over."""
    path = ledger_file(root, table)
    entries: dict[str, Entry] = {}
    if not path.exists():
        return entries
    for line in path.read_bytes().splitlines():
        try:
            event = json.loads(line)
            _apply(entries, event.pop("event"), event.pop("file"), event)
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
    return entries


def ledger_file(root: Path, table: str) -> Path:
    """Where the events of a table are kept."""
    return root / LEDGER / f"{table}.jsonl"


def record(path: Path, rows: int, runs: Mapping[str, int]) -> Record:
    """The record of a file that lies at `path`."""
    return Record(rows, path.stat().st_size, sha256(path), dict(runs))


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def table_lock(root: Path, table: str) -> Iterator[None]:
    """Held by whoever renames or removes files of a table; readers never wait for it."""
    with locked(root, table):
        yield


@contextmanager
def writing(root: Path, table: str, files: Mapping[Path, Record]) -> Iterator[None]:
    """Record that these files are put in place by the body; the caller holds the table's lock."""
    _append(
        root,
        table,
        [
            {"event": "writing", "file": _below(root, path), **vars(entry)}
            for path, entry in files.items()
        ],
        is_durable=True,
    )
    yield
    done = [
        {"event": "written", "file": _below(root, path), "sha256": entry.sha256}
        for path, entry in files.items()
    ]
    _append(root, table, done)


@contextmanager
def removing(root: Path, table: str, paths: list[Path]) -> Iterator[None]:
    """Record that these files are taken away by the body; the caller holds the table's lock."""
    names = [_below(root, path) for path in paths]
    _append(root, table, [{"event": "removing", "file": name} for name in names], is_durable=True)
    yield
    _append(root, table, [{"event": "removed", "file": name} for name in names])


def settle(root: Path, table: str) -> None:
    """Decide what kills left open, by looking; the caller holds the table's lock.

    The ledger is then written anew, one line per file.
    """
    entries = read_ledger(root, table)
    if not entries:
        return
    lines = []
    for name, entry in sorted(entries.items()):
        path = root / name
        if not path.exists() and not entry.is_due:
            continue
        if len(entry.records) > 1 and path.exists():
            digest = sha256(path)
            there = [known for known in entry.records if known.sha256 == digest]
            entry.records = there[:1] or entry.records
        lines += [{"event": "writing", "file": name, **vars(known)} for known in entry.records]
        if len(entry.records) == 1:
            digest = entry.records[0].sha256
            lines.append({"event": "written", "file": name, "sha256": digest})
    _replace(ledger_file(root, table), lines)


def write_ledger(path: Path, records: Mapping[str, Record]) -> None:
    """Start a table's ledger anew with files that are all in their places."""
    lines = []
    for name, known in sorted(records.items()):
        lines.append({"event": "writing", "file": name, **vars(known)})
        lines.append({"event": "written", "file": name, "sha256": known.sha256})
    _replace(path, lines)


def _replace(path: Path, lines: list[dict[str, Any]]) -> None:
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        file.write(_encode(lines))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _apply(entries: dict[str, Entry], event: str, name: str, details: dict[str, Any]) -> None:
    if event == "writing":
        entries.setdefault(name, Entry()).records.append(Record(**details))
    elif event == "written":
        entry = entries[name]
        written = [known for known in entry.records if known.sha256 == details["sha256"]]
        entry.records = written[-1:] or entry.records
        entry.is_due = True
    elif event == "removing" and name in entries:
        entries[name].is_due = False
    elif event == "removed":
        entries.pop(name, None)


def _append(
    root: Path, table: str, lines: list[dict[str, Any]], *, is_durable: bool = False
) -> None:
    path = ledger_file(root, table)
    path.parent.mkdir(exist_ok=True)
    with path.open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":  # Torn by a power cut: the next line must not join it.
                file.write(b"\n")
        file.write(_encode(lines))
        file.flush()
        if is_durable:
            os.fsync(file.fileno())


def _encode(lines: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(line, sort_keys=True).encode() + b"\n" for line in lines)


def _below(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()
