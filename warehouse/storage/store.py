"""What a warehouse needs of the place it lies on, and who provides it.

`store_at` gives the store of a root. What reads and writes rows goes through it, and names files as
`layout` does. A folder (`LocalStore`) has kernel locks and ledgers, an object store (`remote`)
leases and Delta logs.
"""

from __future__ import annotations

import glob
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol, TypeAlias

from axes.warehouse.errors import RootError
from axes.warehouse.storage import layout
from axes.warehouse.storage.files import make_folder, sync_folder
from axes.warehouse.storage.roots import RemoteRoot
from axes.warehouse.tables.columns import Table
from axes.warehouse.tables.schemas import TABLES

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from axes.warehouse.storage.folder import Folder
    from axes.warehouse.storage.ledger import Record
    from axes.warehouse.storage.remote import RemoteStore

# `Folder` says what the commands of maintenance need besides.
MaintainedStore: TypeAlias = "Folder | RemoteStore"


class Store(Protocol):
    """The files of a root. A file counts from its `commit` on, and is then never half there."""

    @property
    def root(self) -> Path:
        """Names below it are made by `layout`; they name files on a disk only of a folder."""

    @property
    def home(self) -> Path:
        """A local folder for temporary files, matrices and the index of keys."""

    @property
    def location(self) -> str:
        """The root as DuckDB takes it in the path of `read_parquet`."""

    def exists(self) -> bool:
        """Whether there is a warehouse, of whichever schema version."""

    def init(self) -> bool:
        """Make a warehouse; see `layout.init_root`."""

    def require(self, *, allows_links: bool = False) -> None:
        """Raise `RootError` unless this is a warehouse of this schema version."""

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables that a process without the user's environment needs to read the files."""

    def attach(self, connection: DuckDBPyConnection) -> None:
        """Let a new connection read the files."""

    def refresh(self, *tables: str) -> None:
        """From now on `files` and queries have what others have committed to these tables."""

    def scanned(self, table: Table) -> tuple[list[str], dict[str, str] | None]:
        """A table's files as polars takes them: paths or patterns, and options of the storage."""

    def partitions(self, table: Table) -> list[Path]:
        """The folders with a table's files, in order."""

    def files(self, folder: Path) -> list[Path]:
        """The files of one partition, in order."""

    def size(self, path: Path) -> int:
        """Bytes of a file of `files`; raises `FileNotFoundError`."""

    def has(self, path: Path) -> bool:
        """Whether a file was committed under this name."""

    def source(self, path: Path) -> Path | IO[bytes]:
        """A file of `files` as pyarrow takes it."""

    def fetch(self, path: Path, copy: Path) -> bool:
        """Bring what `share` put of a file below `home` to a local file; whether there is one."""

    def share(self, path: Path) -> None:
        """Keep a copy of a file below `home` where other machines find it, if that is allowed."""

    def turn(self, table: str) -> AbstractContextManager[None]:
        """Held while files of a table are committed; readers never wait for it."""

    def put(self, table: str, path: Path, written: Path, record: Record) -> Path:
        """Commit a local file under a name, in the place of the one before; in the table's turn.

        Returns the path that `files` has it under.
        """

    def send(self, path: Path, written: Path, record: Record) -> Path:
        """Take a local file to where any machine can commit it under a name; returns the place."""

    def commit(self, table: str, files: Mapping[Path, tuple[Path, Record]]) -> list[Path]:
        """As `put` for several files at once, each at the place that `send` gave it."""

    def remove(self, table: str, paths: Sequence[Path]) -> None:
        """Commit that these files are no longer of the table; in the table's turn."""

    def locked(
        self, name: str, *, notice: str | None = None, refusal: str | None = None
    ) -> AbstractContextManager[None]:
        """Hold the lock called `name`; see `ledger.locked`."""


def store_at(root: Path) -> Store:
    """The store that a root lies on; raises `RootError`."""
    return _remote(root) if isinstance(root, RemoteRoot) else LocalStore(root)


@cache
def _remote(root: RemoteRoot) -> RemoteStore:
    try:
        from axes.warehouse.storage.remote import RemoteStore
    except ImportError as error:
        raise RootError(f"{root} needs more packages: pip install 'safety-axes[s3]'") from error
    return RemoteStore(root)


def maintained(root: Path) -> MaintainedStore:
    """The store that a root lies on, for its maintenance; raises `RootError`."""
    from axes.warehouse.storage.folder import Folder  # Nothing that only reads imports the ledger.

    return _remote(root) if isinstance(root, RemoteRoot) else Folder(root)


def open_store(root: Path, *, allows_links: bool = False) -> MaintainedStore:
    """That of a warehouse, with what was committed to all tables; raises `RootError`."""
    store = maintained(root)
    store.require(allows_links=allows_links)
    store.refresh(*TABLES)
    return store


def data_files(root: Path, table: Table) -> list[Path]:
    """The files of a table, in order."""
    store = store_at(root)
    return [path for folder in store.partitions(table) for path in store.files(folder)]


def filled_files(root: Path, table: Table) -> Iterator[tuple[str | None, Path]]:
    """The partition value and path of each file with rows, in order."""
    for path in data_files(root, table):
        if path.name != layout.EMPTY_FILE:
            yield layout.partition_value(path.parent), path


def maintenance_lock(root: Path) -> AbstractContextManager[None]:
    """Held by what maintains a root; raises `RootError` while another such job runs."""
    refusal = f"{root} is being repaired, compacted, vacuumed or migrated: wait for that to end"
    return locked(root, "maintenance", refusal=refusal)


def require_idle(root: Path) -> None:
    """Raise `RootError` while a job holds a lock, other than that of maintenance."""
    if jobs := [name for name in maintained(root).held_locks() if name != "maintenance"]:
        raise RootError(f"a job is running on {root} ({jobs[0]}): let it end")


def locked(
    root: Path, name: str, *, notice: str | None = None, refusal: str | None = None
) -> AbstractContextManager[None]:
    """Hold the lock called `name`, waiting while another process holds it."""
    return store_at(root).locked(name, notice=notice, refusal=refusal)


def committing(root: Path, model: str) -> AbstractContextManager[None]:
    """Held while files of a model are written that have to agree with stored ones.

    By name, as the partitions are: jobs on two versions of a model write into the same folders.
    """
    return locked(root, f"{model}.commit")


@dataclass(frozen=True)
class LocalStore:
    """A folder on a disk. Nothing that only reads imports the ledger, which takes locks."""

    root: Path

    @property
    def home(self) -> Path:
        return self.root

    @property
    def location(self) -> str:
        return self.root.resolve().as_posix()

    def exists(self) -> bool:
        return (self.root / layout.MARKER).exists()

    def init(self) -> bool:
        return layout.init_root(self.root)

    def require(self, *, allows_links: bool = False) -> None:
        layout.require_root(self.root, allows_links=allows_links)

    @property
    def environment(self) -> Mapping[str, str]:
        return {}

    def attach(self, connection: DuckDBPyConnection) -> None:
        # Meant for remote files; it reads every column chunk of a local one twice.
        connection.execute("set disable_parquet_prefetching = true")

    def refresh(self, *tables: str) -> None:
        """Nothing: the names in a folder are read each time."""

    def scanned(self, table: Table) -> tuple[list[str], dict[str, str] | None]:
        folders = f"{table.partition}=*/" if table.partition else ""
        return [f"{glob.escape(f'{self.location}/{table.name}')}/{folders}[!.]*.parquet"], None

    def partitions(self, table: Table) -> list[Path]:
        return layout.partition_folders(self.root, table)

    def files(self, folder: Path) -> list[Path]:
        return layout.parquet_files(folder)

    def size(self, path: Path) -> int:
        return path.stat().st_size

    def has(self, path: Path) -> bool:
        return path.exists()

    def source(self, path: Path) -> Path:
        return path

    def fetch(self, path: Path, copy: Path) -> bool:
        return False

    def share(self, path: Path) -> None:
        """Nothing: `home` is the root."""

    def turn(self, table: str) -> AbstractContextManager[None]:
        from axes.warehouse.storage.ledger import table_lock

        return table_lock(self.root, table)

    def put(self, table: str, path: Path, written: Path, record: Record) -> Path:
        return self.commit(table, {path: (written, record)})[0]

    def send(self, path: Path, written: Path, record: Record) -> Path:
        return written

    def commit(self, table: str, files: Mapping[Path, tuple[Path, Record]]) -> list[Path]:
        from axes.warehouse.storage.ledger import writing

        with writing(self.root, table, {path: record for path, (_, record) in files.items()}):
            for path, (written, _) in files.items():
                make_folder(self.root, path.parent)
                written.replace(path)
            for folder in {path.parent for path in files}:
                sync_folder(folder)
        return list(files)

    def remove(self, table: str, paths: Sequence[Path]) -> None:
        from axes.warehouse.storage.ledger import removing

        with removing(self.root, table, list(paths)):
            for path in paths:
                path.unlink()
            for folder in {path.parent for path in paths}:
                sync_folder(folder)

    def locked(
        self, name: str, *, notice: str | None = None, refusal: str | None = None
    ) -> AbstractContextManager[None]:
        from axes.warehouse.storage import ledger

        return ledger.locked(self.root, name, notice=notice, refusal=refusal)
