"""A root on an object store: Parquet objects that a Delta log for each table makes its files."""

from __future__ import annotations

import io
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import cache, cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING
from urllib.parse import quote

import pyarrow.parquet as pq

from axes.warehouse.errors import RootError
from axes.warehouse.layout import (
    EMPTY_FILE,
    MARKER,
    empty_file,
    marker_bytes,
    no_warehouse,
    parse_version,
    require_version,
)
from axes.warehouse.ledger import Record
from axes.warehouse.settings import cache_folder
from axes.warehouse.storage.delta_log import DeltaLog, file_name, object_name
from axes.warehouse.storage.filesystem import PROTOCOL, LakeFileSystem
from axes.warehouse.storage.leases import FOLDER, Lease, leased
from axes.warehouse.storage.objects import Objects
from axes.warehouse.storage.roots import RemoteRoot
from axes.warehouse.tables.columns import Table
from axes.warehouse.tables.schemas import SCHEMA_VERSION, TABLES

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_PROBE = ".probe"
# Logs that are read at once.
_READERS = 16


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
        return f"{PROTOCOL}://{str(self.root).removeprefix('s3://')}"

    @cached_property
    def filesystem(self) -> LakeFileSystem:
        return LakeFileSystem(self.location, self._listed, self._read)

    def init(self) -> bool:
        if self._objects.get(MARKER) is not None:
            self.require()
            return False
        stored = [name for name in self._objects.names() if not name.startswith((_PROBE, FOLDER))]
        if stored and MARKER not in stored:
            raise RootError(
                f"{self.root} is not a warehouse and not empty: give --root another folder"
            )
        self._require_conditional_put()
        marker = marker_bytes({"schema_version": SCHEMA_VERSION})
        return self._objects.put_new(MARKER, marker) is not None

    def _require_conditional_put(self) -> None:
        """Raise `RootError` for a store that puts over an object in spite of If-None-Match."""
        probe = f"{_PROBE}/{uuid.uuid4().hex}"
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

    def require(self) -> None:
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
        with ThreadPoolExecutor(_READERS) as pool:
            list(pool.map(lambda name: self._logs[name].refresh(), tables))

    def scanned(self, table: Table) -> tuple[list[str], dict[str, str] | None]:
        self.refresh(table.name)
        paths = [str(self.root / name) for name in self._logs[table.name].files]
        return paths, self._objects.options

    def partitions(self, table: Table) -> list[Path]:
        return sorted({(self.root / name).parent for name in self._listed(table.name)})

    def files(self, folder: Path) -> list[Path]:
        names = self._listed(folder.relative_to(self.root).parts[0])
        prefix = f"{folder.relative_to(self.root).as_posix()}/"
        return [self.root / name for name in names if name.startswith(prefix)]

    def size(self, path: Path) -> int:
        return self.filesystem.info(self._path(path))["size"]

    def has(self, path: Path) -> bool:
        name = path.relative_to(self.root).as_posix()
        log = self._logs[name.partition("/")[0]]
        log.refresh()
        return name in log.objects

    def source(self, path: Path) -> IO[bytes]:
        return self.filesystem.open(self._path(path))

    def turn(self, table: str) -> nullcontext[None]:
        """No lock: a commit that another has overtaken is made again."""
        return nullcontext()

    def put(self, table: str, path: Path, written: Path, record: Record) -> Path:
        name = path.relative_to(self.root).as_posix()
        # A file that was read from here already has the name of an object.
        stored = object_name(file_name(name) if name in self._logs[table].files else name, record)
        self._objects.put_new(stored, written)
        self._require_leases()
        self._logs[table].commit({stored: record}, [name])
        return self.root / stored

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
        return {name: len(content), **self._logs[table].files}

    def _read(self, name: str, start: int, end: int) -> bytes:
        if name.endswith(f"/{EMPTY_FILE}"):
            return _empty(name.partition("/")[0])[1][start:end]
        return self._objects.read(name, start, end)

    def _path(self, path: Path) -> str:
        return f"{self.location}/{path.relative_to(self.root).as_posix()}"


@cache
def _empty(table: str) -> tuple[str, bytes]:
    """The name and the bytes of the file that gives a table without rows its columns."""
    buffer = io.BytesIO()
    pq.write_table(TABLES[table].file_schema.empty_table(), buffer)
    return empty_file(Path(), TABLES[table]).as_posix(), buffer.getvalue()
