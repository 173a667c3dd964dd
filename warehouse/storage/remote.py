"""A root on an object store: Parquet objects that a Delta log for each table makes its files.

Files are brought to a local folder to be read completely. Times are those of the store, which a
lease that was just put tells.
"""

from __future__ import annotations

import io
import uuid
from collections import ChainMap
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from datetime import timedelta
from functools import cache, cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING
from urllib.parse import quote

import pyarrow.parquet as pq

from axes.warehouse.errors import RootError
from axes.warehouse.render import echo
from axes.warehouse.settings import cache_folder
from axes.warehouse.storage.delta_log import DeltaLog, file_name, object_name
from axes.warehouse.storage.files import QUARANTINE, TEMPORARY, make_folder
from axes.warehouse.storage.filesystem import PROTOCOL, LakeFileSystem
from axes.warehouse.storage.layout import (
    EMPTY_FILE,
    MARKER,
    empty_file,
    marker_bytes,
    no_warehouse,
    parse_version,
    require_version,
)
from axes.warehouse.storage.leases import FOLDER, Lease, is_alive, leased
from axes.warehouse.storage.ledger import Entry, Record
from axes.warehouse.storage.objects import Objects
from axes.warehouse.storage.roots import RemoteRoot
from axes.warehouse.storage.store import require_idle
from axes.warehouse.tables.columns import Table
from axes.warehouse.tables.schemas import SCHEMA_VERSION, TABLES

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_PROBE = ".probe"
# What says that a root is being filled, or was when that was killed.
_FILLING = ".filling"
# Logs that are read, or files that are put, at once.
_AT_ONCE = 16


class RemoteStore:
    """`s3://bucket/folder`; see `store.Store`. One for each root of a process."""

    def __init__(self, root: RemoteRoot) -> None:
        self.root = root
        self._objects = Objects(root)
        self._logs = {name: DeltaLog(self._objects, table) for name, table in TABLES.items()}
        self._leases: list[Lease] = []

    @cached_property
    def home(self) -> Path:
        folder = cache_folder() / "remote" / quote(str(self.root), safe="")
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise RootError(f"{folder}, for temporary files of {self.root}: {error}") from error
        return folder

    @property
    def location(self) -> str:
        return f"{PROTOCOL}://{str(self.root).partition('://')[2]}"

    @property
    def environment(self) -> Mapping[str, str]:
        return {name.upper(): value for name, value in self._objects.options.items()}

    @cached_property
    def filesystem(self) -> LakeFileSystem:
        return LakeFileSystem(self.location, self._listed, self._read)

    def exists(self) -> bool:
        return self._objects.get(MARKER) is not None

    def init(self) -> bool:
        if self.exists():
            self.require()
            return False
        stored = [name for name in self._objects.names() if not name.startswith((_PROBE, FOLDER))]
        if stored and MARKER not in stored:
            raise RootError(
                f"{self.root} is not a warehouse and not empty: give --root another folder"
            )
        self._require_conditional_put()
        return self._mark()

    def _mark(self) -> bool:
        """Put the marker, which makes the root a warehouse; True where there was none."""
        self._require_leases()
        marker = marker_bytes({"schema_version": SCHEMA_VERSION})
        return self._objects.put_new(MARKER, marker) is not None

    def _require_conditional_put(self) -> None:
        """Raise `RootError` for a store that puts over an object in spite of If-None-Match."""
        probe = f"{_PROBE}/{uuid.uuid4().hex}"
        if self.root.scheme != "s3":
            echo(f"warning: a root on {self.root.scheme}:// is experimental", err=True)
        try:
            self._objects.put_new(probe, b"1")
            if self._objects.put_new(probe, b"2") is None:
                return
        finally:
            self._objects.delete(probe)
        raise RootError(
            f"{self.root}: the store ignores If-None-Match, so that two jobs could overwrite each "
            "other's rows: use another store, or a newer version of it"
        )

    def require(self, *, allows_links: bool = False) -> None:
        if (marker := self._objects.get(MARKER)) is None:
            raise no_warehouse(self.root)
        try:
            version = parse_version(marker[0])
        except (ValueError, KeyError, TypeError) as error:
            raise RootError(f"{self.root / MARKER} cannot be read: {error!r}") from error
        require_version(self.root, *version)

    def attach(self, connection: DuckDBPyConnection) -> None:
        connection.register_filesystem(self.filesystem)

    def refresh(self, *tables: str) -> None:
        if len(tables) == 1:
            self._logs[tables[0]].refresh()
            return
        there = self._objects.folders()
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(lambda name: self._logs[name].refresh(), there.intersection(tables)))

    def scanned(self, table: Table) -> tuple[list[str], dict[str, str] | None]:
        self.refresh(table.name)
        paths = [str(self.root / name) for name in self._logs[table.name].files]
        return paths, self._objects.options

    def partitions(self, table: Table) -> list[Path]:
        empty, _ = _empty(table.name)
        names = {empty.rpartition("/")[0], *self._logs[table.name].folders}
        return [self.root / name for name in sorted(names)]

    def files(self, folder: Path) -> list[Path]:
        name = self._name(folder)
        table = name.partition("/")[0]
        empty, _ = _empty(table)
        names = [empty] if empty.rpartition("/")[0] == name else []
        return [self.root / each for each in names + self._logs[table].folders.get(name, [])]

    def size(self, path: Path) -> int:
        return self.filesystem.info(self._path(path))["size"]

    def has(self, path: Path) -> bool:
        name = self._name(path)
        log = self._logs[name.partition("/")[0]]
        log.refresh()
        return name in log.objects

    def source(self, path: Path) -> IO[bytes]:
        return self.filesystem.open(self._path(path))

    @contextmanager
    def local(self, path: Path) -> Iterator[Path]:
        target = make_folder(self.home, self.home / TEMPORARY) / f"{uuid.uuid4().hex}.tmp"
        name = self._name(path)
        try:
            if path.name == EMPTY_FILE:
                target.write_bytes(_empty(name.partition("/")[0])[1])
            else:
                self._objects.download(name, target)
            yield target
        finally:
            target.unlink(missing_ok=True)

    def stem(self, path: Path) -> str:
        name = self._name(path)
        return Path(name if path.name == EMPTY_FILE else file_name(name)).stem

    def stored(self, table: Table) -> dict[str, int]:
        there, (empty, content) = self._objects.listed(table.name), _empty(table.name)
        if there:
            self._logs[table.name].refresh()
        named = self._logs[table.name].files.keys() & there.keys()
        return {empty: len(content), **{name: there[name].size for name in sorted(named)}}

    def entries(self, table: str) -> dict[str, Entry]:
        return self._logs[table].entries()

    def foreign(self, table: Table) -> Iterator[tuple[str, str]]:
        """Nothing: an object that the log does not name is none of the table's, nor in the way."""
        return iter(())

    def fetch(self, path: Path, copy: Path) -> bool:
        make_folder(self.home, copy.parent)
        copy.unlink(missing_ok=True)
        with suppress(FileNotFoundError):
            self._objects.download(path.relative_to(self.home).as_posix(), copy)
            return True
        return False

    def share(self, path: Path) -> None:
        with suppress(RootError):
            self._objects.put(path.relative_to(self.home).as_posix(), path.read_bytes())

    def turn(self, table: str) -> nullcontext[None]:
        """No lock: a commit that another has overtaken is made again."""
        return nullcontext()

    def put(self, table: str, path: Path, written: Path, record: Record) -> Path:
        name = path.relative_to(self.root).as_posix()
        # A file that was read from here already has the name of an object.
        target = self.root / file_name(name) if name in self._logs[table].files else path
        return self.commit(table, {path: (self.send(target, written, record), record)})[0]

    def send(self, path: Path, written: Path, record: Record) -> Path:
        stored = object_name(path.relative_to(self.root).as_posix(), record)
        self._objects.put_new(stored, written)
        return self.root / stored

    def commit(self, table: str, files: Mapping[Path, tuple[Path, Record]]) -> list[Path]:
        self._require_leases()
        added = {
            place.relative_to(self.root).as_posix(): record for place, record in files.values()
        }
        removed = [path.relative_to(self.root).as_posix() for path in files]
        self._logs[table].commit(added, removed)
        return [place for place, _ in files.values()]

    def replace(
        self,
        table: Table,
        merged: Mapping[Path, tuple[Path, Record]],
        originals: Mapping[Path, str],
    ) -> bool:
        added = {}
        for path, (written, record) in merged.items():
            added[self._name(self.send(path, written, record))] = record
            written.unlink()
        self._require_leases()
        removed = [self._name(path) for path in originals]
        return self._logs[table.name].commit(added, removed, is_strict=True)

    def set_aside(self, table: Table, path: Path, aside: Path) -> None:
        name = self._name(path)
        self._objects.copy(name, self._name(aside / name))
        self.remove(table.name, [path])
        self._objects.delete(name)

    def adopt(self, table: str, files: Mapping[Path, Record]) -> None:
        for path, record in files.items():
            with self.local(path) as file:
                self.put(table, path, file, record)

    def settle(self, table: str) -> None:
        """Nothing: a commit is there or not."""

    def clear(self, hours: float, *, empties_quarantine: bool) -> Iterator[tuple[str, str, int]]:
        if hours < 1:  # An object is put some seconds before its commit.
            require_idle(self.root)
        there = self._objects.listed()
        now = max(each.put_at for each in there.values())
        logs = [self._logs[name] for name in {name.partition("/")[0] for name in there} & {*TABLES}]
        names = {("unread", name) for log in logs for name in log.unread(hours)}
        if empties_quarantine:
            names |= {("quarantine", name) for name in there if name.startswith(f"{QUARANTINE}/")}
        for kind, name in sorted(names, key=lambda each: each[1]):
            listed = there.get(name)
            is_data = name.endswith(".parquet") and "/_delta_log/" not in name
            if is_data and listed and listed.put_at <= now - timedelta(hours=hours):
                self._objects.delete(name)
                yield kind, name, listed.size

    @contextmanager
    def filling(self) -> Iterator[Path]:
        refusal = f"{self.root} is being written by another job: let it end"
        if self.exists():
            raise RootError(f"{self.root} exists and is a warehouse, complete: give another folder")
        with self.locked("building", refusal=refusal):
            left = [name for name in self._objects.names() if not name.startswith((_PROBE, FOLDER))]
            if left and _FILLING not in left:
                raise RootError(f"{self.root} exists and is not empty: give another folder")
            self._require_conditional_put()
            self._objects.put(_FILLING, b"")
            if others := [name for name in left if name != _FILLING]:
                self._objects.delete(*others)
            self._logs = {name: DeltaLog(self._objects, table) for name, table in TABLES.items()}
            yield self.root
            self._mark()
            self._objects.delete(_FILLING)

    def held_locks(self) -> list[str]:
        leases = self._objects.listed(FOLDER)
        now = max((each.put_at for each in leases.values()), default=None)
        return [
            name.removeprefix(f"{FOLDER}/")
            for name, each in sorted(leases.items())
            if now is not None and is_alive(each.put_at, now)
        ]

    def remove(self, table: str, paths: Sequence[Path]) -> None:
        self._require_leases()
        self._logs[table].commit({}, [path.relative_to(self.root).as_posix() for path in paths])

    @contextmanager
    def locked(
        self, name: str, *, notice: str | None = None, refusal: str | None = None
    ) -> Iterator[None]:
        with leased(self._objects, name, notice=notice, refusal=refusal) as lease:
            self._leases.append(lease)
            try:
                yield
            finally:
                self._leases.remove(lease)

    def _require_leases(self) -> None:
        for lease in self._leases:
            lease.require()

    def _listed(self, table: str) -> Mapping[str, int]:
        """Names and sizes of a table's files, and of the one without rows, which no object is."""
        if table not in self._logs:
            return {}
        name, content = _empty(table)
        return ChainMap(self._logs[table].files, {name: len(content)})

    def _read(self, name: str, start: int, end: int) -> bytes:
        if name.endswith(f"/{EMPTY_FILE}"):
            return _empty(name.partition("/")[0])[1][start:end]
        return self._objects.read(name, start, end)

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def _path(self, path: Path) -> str:
        return f"{self.location}/{self._name(path)}"


@cache
def _empty(table: str) -> tuple[str, bytes]:
    """The name and the bytes of the file that gives a table without rows its columns."""
    buffer = io.BytesIO()
    pq.write_table(TABLES[table].file_schema.empty_table(), buffer)
    return empty_file(Path(), TABLES[table]).as_posix(), buffer.getvalue()
