"""The files of a root on a disk as a locked connection opens them: for reading, and no other way.

DuckDB's own settings permit writing wherever they permit reading. Here it is given no path of the
disk but names of this file system, which opens regular files inside some folders, follows no link
out of them, waits for nothing, and has no way to write, move or delete.
"""

from __future__ import annotations

import os
import stat
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fsspec.spec import AbstractFileSystem

from axes.warehouse.errors import RootError
from axes.warehouse.storage.files import open_regular

PROTOCOL = "axes-file"
_PREFIX = f"{PROTOCOL}://"


def read_only(path: str) -> str:
    """The name of a path, or of a pattern of paths, in the file system."""
    return _PREFIX + path


class ReadOnlyFiles(AbstractFileSystem):
    """Reads regular files below `folders`, which are absolute and without links."""

    protocol = PROTOCOL
    cachable = False

    def __init__(self, *folders: str) -> None:
        super().__init__()
        self._folders = [Path(folder) for folder in folders]

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return path

    def glob(self, path: str, maxdepth: int | None = None, **_: Any) -> list[str]:
        """The files that match a pattern."""
        found = Path("/").glob(path.removeprefix(_PREFIX).lstrip("/"))
        return [read_only(each.as_posix()) for each in found]

    def info(self, path: str, **_: Any) -> dict[str, object]:
        """Name, size and type; raises `RootError` where there is no such file."""
        status = self._path(path).lstat()
        kind = "file" if stat.S_ISREG(status.st_mode) else "other"
        return {"name": path, "size": status.st_size, "type": kind}

    def modified(self, path: str) -> datetime:
        """When the file was written last."""
        return datetime.fromtimestamp(self._path(path).lstat().st_mtime, UTC)

    def _open(self, path: str, mode: str = "rb", *_: Any, **__: Any) -> _File:
        if mode != "rb":
            raise RootError(f"{path.removeprefix(_PREFIX)} is opened for reading only")
        return _File(self._path(path))

    def _path(self, name: str) -> Path:
        """The path of a name; raises `RootError` unless it is that of a file inside."""
        path = Path(name.removeprefix(_PREFIX))
        try:
            real = path.resolve(strict=True)
        except OSError as error:
            raise RootError(f"No such file: {path}") from error
        if not any(real.is_relative_to(folder) for folder in self._folders):
            raise RootError(f"{path} leads out of the warehouse")
        return path


class _File:
    """Each thread of DuckDB has a place of its own, since they read one file at a time."""

    def __init__(self, path: Path) -> None:
        self._file = open_regular(path)
        self.size = os.fstat(self._file.fileno()).st_size
        self._places = threading.local()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._places.offset = offset
        return offset

    def tell(self) -> int:
        return getattr(self._places, "offset", 0)

    def read(self, length: int) -> bytes:
        data = os.pread(self._file.fileno(), length, self.tell())
        self._places.offset = self.tell() + len(data)
        return data

    def close(self) -> None:
        self._file.close()
