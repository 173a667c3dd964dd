"""An open warehouse as one object: its folder, its connection, and how to query and write it.

Everything that reads and writes takes this instead of a root, a connection and a run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa

from axes.warehouse.connection import Connection, connect, connect_tables, query, stream
from axes.warehouse.storage.store import store_at

if TYPE_CHECKING:
    from axes.warehouse.runs import Run

Row = TypeVar("Row")


@dataclass(frozen=True, eq=False)
class Warehouse:
    """The folder of a warehouse and a DuckDB connection to its tables, views and macros."""

    root: Path
    connection: Connection

    @classmethod
    def open(cls, root: Path, *, memory_limit: int | None = None) -> Warehouse:
        """All of a warehouse; `memory_limit` is in bytes. Raises `RootError` if it is not one."""
        return cls(root, connect(root, memory_limit=memory_limit))

    @classmethod
    def open_tables(cls, root: Path, *tables: str) -> Warehouse:
        """Some tables of a warehouse and no view, which opens in milliseconds."""
        return cls(root, connect_tables(root, *tables))

    def query(self, sql: str, parameters: Any = None) -> pa.Table:
        """The rows of one statement as an Arrow table; raises `QueryError`."""
        return query(self.connection, sql, parameters)

    def rows(self, kind: Callable[..., Row], sql: str, parameters: Any = None) -> list[Row]:
        """The rows of one statement, each as `kind(column=value, ...)`: a frozen dataclass."""
        return [kind(**row) for row in self.query(sql, parameters).to_pylist()]

    def column(self, sql: str, parameters: Any = None) -> list[Any]:
        """The values of the first column of one statement."""
        return self.query(sql, parameters).column(0).to_pylist()

    def stream(self, sql: str, parameters: Any = None) -> Iterator[pa.RecordBatch]:
        """The rows of one statement in batches, which need not fit in memory together."""
        return stream(self.connection, sql, parameters)

    def has(self, table: str, name: str) -> bool:
        """Whether the file `name` of a table is stored: its rows need not be computed."""
        from axes.warehouse.writer import data_file  # Its imports take 0.04 s: not to read rows.

        return store_at(self.root).has(data_file(self.root, table, name))

    def write(
        self,
        table: str,
        row_groups: pa.Table | Iterable[pa.Table],
        *,
        name: str,
        partition: str | None = None,
    ) -> None:
        """Store one file of a table under a content key; see `writer.write_rows`."""
        from axes.warehouse.writer import write_rows

        write_rows(self.root, table, row_groups, name=name, partition=partition)

    def run(
        self,
        command: str,
        parameters: Mapping[str, Any],
        *,
        device: str | None = None,
        seed: int | None = None,
    ) -> AbstractContextManager[Run]:
        """A provenance row for what happens inside; see `runs.record_run`."""
        from axes.warehouse.runs import record_run

        return record_run(self.root, command, parameters, device=device, seed=seed)
