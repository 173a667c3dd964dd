"""Matrices of any size: an array where it is small, else rows in an unnamed file below the root.

A matrix on disk is sliced as an array is, `rows[start:stop]` brings those rows into memory, so that
what goes through a matrix in blocks need not know where it lies. The file has no name (it is
unlinked as soon as it is open): it is gone with the process, however that ends.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from typing import IO

import numpy as np

from axes.warehouse.connection import SCRATCH, Connection, root_of
from axes.warehouse.errors import RootError


@dataclass(frozen=True)
class StoredRows:
    """A float32 `[rows, d]` matrix in a file; `index` says which of the file's rows, None all."""

    file: IO[bytes]
    shape: tuple[int, int]
    index: np.ndarray | None = None

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, part: slice) -> np.ndarray:
        start, stop, _ = part.indices(len(self))
        block = np.empty((max(stop - start, 0), self.shape[1]), dtype=np.float32)
        if self.index is None:
            _read(self.file, block, start * self._row_bytes)
        else:
            for row, place in zip(block, self.index[start:stop].tolist(), strict=True):
                _read(self.file, row, place * self._row_bytes)
        return block

    def __setitem__(self, places: np.ndarray, block: np.ndarray) -> None:
        order = np.argsort(places)
        rows = np.ascontiguousarray(block[order], dtype=np.float32)
        places = places[order]
        # Neighbours are written together: rows that were ingested in order take one call.
        for part in np.split(np.arange(len(places)), np.flatnonzero(np.diff(places) != 1) + 1):
            if len(part):
                _write(self.file, rows[part], int(places[part[0]]) * self._row_bytes)

    def take(self, index: np.ndarray) -> StoredRows:
        """The rows of `index`, in its order, without copying them."""
        chosen = index if self.index is None else self.index[index]
        return StoredRows(self.file, (len(index), self.shape[1]), chosen)

    @property
    def _row_bytes(self) -> int:
        return self.shape[1] * 4


Rows = np.ndarray | StoredRows


def allocate(connection: Connection, row_count: int, width: int) -> Rows:
    """Room for a float32 matrix: in memory where it takes a small part of what may be taken.

    The part is that of `connect`'s memory limit; every matrix of a study has to find room.
    """
    share = connection.execute("select getvariable('matrix_bytes')").fetchall()[0][0]
    if row_count * width * 4 <= share:
        return np.empty((row_count, width), dtype=np.float32)
    folder = root_of(connection) / SCRATCH
    folder.mkdir(exist_ok=True)
    return StoredRows(tempfile.TemporaryFile(dir=folder), (row_count, width))


def _write(file: IO[bytes], block: np.ndarray, offset: int) -> None:
    view = block.data.cast("B")
    try:
        while len(view):
            count = os.pwrite(file.fileno(), view, offset)
            view, offset = view[count:], offset + count
    except OSError as error:
        raise RootError(
            f"a matrix larger than memory finds no room on the disk: {error}"
        ) from error


def _read(file: IO[bytes], into: np.ndarray, offset: int) -> None:
    view = into.data.cast("B") if into.size else memoryview(b"")
    while len(view):
        count = os.preadv(file.fileno(), [view], offset)
        if not count:
            raise EOFError(f"{len(view)} bytes of a matrix were never written")
        view, offset = view[count:], offset + count
