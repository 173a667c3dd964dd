"""The Delta log of a table: which of the objects below `s3://bucket/folder/table` are its files.

A log is a row of numbered objects, each put by one conditional request, so that of two commits of
one number one is refused and made again on top of the other. deltalake writes and reads it; other
tools read the tables through it. An object that no commit names is no file of the table, whatever
left it there.
"""

from __future__ import annotations

import json
import math
import random
import re
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Schema
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, RemoveAction

from axes.warehouse.errors import RootError
from axes.warehouse.storage.layout import partition_value
from axes.warehouse.storage.ledger import Entry, Record
from axes.warehouse.storage.objects import Objects
from axes.warehouse.tables.columns import Table

# How often a commit is made again because others came first.
_ATTEMPTS = 20
_HASH_LENGTH = 16
_OUR_NAME = re.compile(rf"\.([0-9a-f]{{{_HASH_LENGTH}}})\.parquet$")
_OF_ENTRIES = ("path", "size_bytes", "num_records", "min.run_id", "max.run_id")
# Every ten commits a checkpoint, so that opening reads few commits.
_CONFIGURATION: dict[str, str | None] = {"delta.checkpointInterval": "10"}


def object_name(name: str, record: Record) -> str:
    """The name of the object with a file's bytes: another for other bytes.

    >>> object_name("runs/x.parquet", Record(1, 9, "ab" * 32, {}))
    'runs/x.abababababababab.parquet'
    """
    return f"{name.removesuffix('.parquet')}.{record.sha256[:_HASH_LENGTH]}.parquet"


def file_name(name: str) -> str:
    """The name of the file that an object has the bytes of.

    >>> file_name("runs/x.abababababababab.parquet")
    'runs/x.parquet'
    """
    return f"{name.rsplit('.', 2)[0]}.parquet"


class DeltaLog:
    """One table's log. `files` is as of the last `refresh` or `commit` of this process."""

    def __init__(self, objects: Objects, table: Table) -> None:
        self._objects, self._table = objects, table
        self._delta: DeltaTable | None = None
        self._lock = threading.RLock()
        self._version = -1
        # Names below the root -> bytes; the objects by the names of their files, and by folder.
        self.files: dict[str, int] = {}
        self.objects: dict[str, str] = {}
        self.folders: dict[str, list[str]] = {}
        self._entries: tuple[int, dict[str, Entry]] = -1, {}

    def refresh(self) -> None:
        """Read what was committed since; raises `RootError`."""
        with self._lock, self._objects.errors():
            if self._delta is None:
                self._delta = self._opened()
            else:
                self._delta.update_incremental()
            if self._delta is not None and self._delta.version() != self._version:
                self._require_plain(self._delta)
                self._read(self._delta)

    def commit(
        self, added: Mapping[str, Record], removed: Iterable[str] = (), *, is_strict: bool = False
    ) -> bool:
        """Add objects, in the place of those of files of the same name, and take others out.

        All of it counts at once. False, and nothing is done, where another has taken out one of
        `removed` before and the commit `is_strict`. Raises `RootError`.
        """
        removed = {*removed}
        with self._lock, self._objects.errors():
            for attempt in range(_ATTEMPTS):
                # A commit on top of an old state is refused, so that is as good at first.
                if attempt or self._delta is None:
                    self.refresh()
                old = {self.objects.get(file_name(name)) for name in added} | removed
                old = (old & self.files.keys()) - added.keys()
                new = {name: each for name, each in added.items() if name not in self.files}
                is_overtaken = is_strict and not removed <= self.files.keys()
                if is_overtaken or not (new or old):
                    if attempt:
                        return not is_overtaken
                    continue
                try:
                    self._write(new, old)
                except CommitFailedError:
                    # Others have committed between; the jitter lets one of many through.
                    time.sleep(random.uniform(0, 0.05 * (attempt + 1)))
                    continue
                self.refresh()
                return True
            raise RootError(f"{self._uri}: {_ATTEMPTS} commits in a row were overtaken by others")

    def entries(self) -> dict[str, Entry]:
        """The files that were written by this code; of one with rows of several jobs no `runs`."""
        if self._delta is None or self._entries[0] == self._version:
            return self._entries[1]
        entries = {}
        for path, size, rows, first, last in _actions(self._delta, *_OF_ENTRIES):
            if match := _OUR_NAME.search(path):
                runs = {first: rows} if first and first == last else {}
                record = Record(rows, size, match[1], runs)
                entries[f"{self._table.name}/{unquote(path)}"] = Entry([record], is_due=True)
        self._entries = self._version, entries
        return entries

    def unread(self, hours: float) -> set[str]:
        """The names of objects that have been no files of the table for so long."""
        self.refresh()
        if self._delta is None:
            return {*self._objects.listed(self._table.name)}
        with self._objects.errors():
            paths = self._delta.vacuum(
                math.ceil(hours), dry_run=True, enforce_retention_duration=False, full=True
            )
        return {f"{self._table.name}/{unquote(path)}" for path in paths}

    @property
    def _uri(self) -> str:
        return f"{self._objects.root}/{self._table.name}"

    def _opened(self) -> DeltaTable | None:
        try:
            return DeltaTable(self._uri, storage_options=self._objects.options)
        except TableNotFoundError:
            return None

    def _write(self, new: Mapping[str, Record], old: Iterable[str | None]) -> None:
        delta, now = self._delta or self._created(), int(time.time() * 1000)
        actions: list[AddAction | RemoveAction] = [
            AddAction(
                path=self._below_table(name),
                size=record.size,
                partition_values=self._partition(name),
                modification_time=now,
                data_change=True,
                stats=json.dumps(_statistics(record)),
            )
            for name, record in sorted(new.items())
        ]
        actions += [
            RemoveAction(
                path=self._below_table(name),
                deletion_timestamp=now,
                data_change=True,
                partition_values=self._partition(name),
                size=self.files[name],
            )
            for name in sorted(filter(None, old))
        ]
        delta.create_write_transaction(
            actions,
            "append",
            delta.schema(),
            partition_by=self._partitioned_by,
            commit_properties=CommitProperties(max_commit_retries=0),
        )

    def _created(self) -> DeltaTable:
        """The log of a table that has none yet; another process may make it at the same time."""
        try:
            self._delta = DeltaTable.create(
                self._uri,
                Schema.from_arrow(self._table.schema),
                partition_by=self._partitioned_by,
                configuration=_CONFIGURATION,
                storage_options=self._objects.options,
            )
        except DeltaError:
            self._delta = self._opened()
            if self._delta is None:
                raise
        return self._delta

    def _read(self, delta: DeltaTable) -> None:
        actions = _actions(delta, "path", "size_bytes")
        files = {f"{self._table.name}/{unquote(path)}": size for path, size in actions}
        self.objects = {file_name(name): name for name in files}
        self.files, self._version = dict(sorted(files.items())), delta.version()
        self.folders = {}
        for name in self.files:
            self.folders.setdefault(name.rpartition("/")[0], []).append(name)

    def _require_plain(self, delta: DeltaTable) -> None:
        """Raise `RootError` for a log whose rows are not simply those in its files."""
        protocol = delta.protocol()
        if protocol.min_reader_version > 1:
            features = ", ".join(protocol.reader_features or ["column mapping"])
            raise RootError(
                f"{self._uri}: another tool has given this table {features}, which this code does "
                "not read: restore the version of the Delta log before that"
            )

    @property
    def _partitioned_by(self) -> list[str]:
        return [self._table.partition] if self._table.partition else []

    def _partition(self, name: str) -> dict[str, str | None]:
        if not self._table.partition:
            return {}
        return {self._table.partition: partition_value((self._objects.root / name).parent)}

    def _below_table(self, name: str) -> str:
        return name.removeprefix(f"{self._table.name}/")


def _statistics(record: Record) -> dict[str, object]:
    """What the log says of a file, in Delta's words: how many rows, and of which jobs."""
    runs = record.runs
    ends = {"minValues": {"run_id": min(runs)}, "maxValues": {"run_id": max(runs)}} if runs else {}
    return {"numRecords": record.rows, **ends}


def _actions(delta: DeltaTable, *columns: str) -> Iterator[tuple[Any, ...]]:
    """Some columns, null where there is none, of the files that a log names."""
    actions = pa.table(delta.get_add_actions(flatten=True))
    values = [
        actions[name].to_pylist() if name in actions.column_names else [None] * len(actions)
        for name in columns
    ]
    return zip(*values, strict=True)
