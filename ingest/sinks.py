"""Where a job's rows go: into the warehouse at once, or to the process that commits them.

A job that spreads over workers has one process that commits. Its workers only write files, which an
`Outbox` lists.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pyarrow as pa

from axes.ingest.forward.activation_keys import Items
from axes.warehouse.storage.layout import partition_folder
from axes.warehouse.storage.store import committing, store_at
from axes.warehouse.tables.schemas import TABLES
from axes.warehouse.writer import SentFile, send_rows, write_rows


class Direct:
    """Commits each file of a model as it is written."""

    def __init__(self, root: Path, model: str) -> None:
        self._root, self._model = root, model

    def turn(self) -> AbstractContextManager[None]:
        """Held while files that belong together are written."""
        return committing(self._root, self._model)

    def write(self, table: str, row_groups: Iterable[pa.Table], name: str) -> bool:
        """Write one file, in a turn; returns whether it is new."""
        write_rows(self._root, table, row_groups, name=name, partition=self._model)
        return True


class StoredRows(Direct):
    """What is stored of a model version, looked up again whenever other jobs have written.

    One object from the look-up that decides what is run to the last commit, so that no file of
    another job falls between two looks. Files of the job's own are written through it.
    """

    def __init__(
        self,
        root: Path,
        model: str,
        look_up: Callable[[], dict[str, Items]],
        tables: Sequence[str],
    ) -> None:
        super().__init__(root, model)
        self._look_up, self._tables = look_up, tables
        self._known_files = _data_files(root, model, tables)
        self._by_others: dict[str, Items] = {}
        self.at_start = look_up()

    def by_others(self) -> dict[str, Items]:
        """Prompt id -> what is stored of it, if others have written since the start; nearly always
        nothing. The caller holds the turn."""
        files = _data_files(self._root, self._model, self._tables)
        if not files <= self._known_files:
            self._known_files |= files
            self._by_others = self._look_up()
        return self._by_others

    def write(self, table: str, row_groups: Iterable[pa.Table], name: str) -> bool:
        """Write one file, in a turn; returns whether it is new."""
        path = write_rows(self._root, table, row_groups, name=name, partition=self._model)
        is_new = path not in self._known_files
        self.add([path])
        return is_new

    def add(self, paths: Iterable[Path]) -> None:
        """Take files that this job has committed for its own."""
        self._known_files.update(paths)


class Outbox(Direct):
    """Lists the `files` that a worker writes, for the driver to commit."""

    def __init__(self, root: Path, model: str) -> None:
        super().__init__(root, model)
        self.files: list[SentFile] = []

    def turn(self) -> AbstractContextManager[None]:
        """Held by nobody: nothing is committed."""
        return nullcontext()

    def by_others(self) -> dict[str, Items]:
        """Nothing: the driver looks."""
        return {}

    def write(self, table: str, row_groups: Iterable[pa.Table], name: str) -> bool:
        """Write one file where the driver finds it."""
        file = send_rows(self._root, table, row_groups, name=name, partition=self._model)
        self.files.append(file)
        return True


def _data_files(root: Path, model: str, tables: Sequence[str]) -> set[Path]:
    """The committed files of these tables of a model."""
    store = store_at(root)
    store.refresh(*tables)
    return {
        path
        for table in tables
        for path in store.files(partition_folder(root, TABLES[table], model))
    }
