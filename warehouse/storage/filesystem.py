"""The files of a remote root as DuckDB and pyarrow open them, through fsspec.

DuckDB lists a view's pattern at each query: it gets the files of the Delta log. Reads are not
rounded up and nothing is read ahead: Parquet's readers ask for what they need, and of a file with
a row group per layer a block of megabytes read ahead is mostly other layers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from fnmatch import translate
from typing import Any

from fsspec.spec import AbstractBufferedFile, AbstractFileSystem

# As DuckDB sees them: `s3://` would be taken by its own extension, where that loads.
PROTOCOL = "axes-s3"
# The content of a name never changes, so neither does its time.
_UNCHANGED = datetime(2000, 1, 1, tzinfo=UTC)


class _File(AbstractBufferedFile):
    def _fetch_range(self, start: int, end: int) -> bytes:
        return self.fs.read(self.path, start, end)


class LakeFileSystem(AbstractFileSystem):
    """Reads alone; paths start with `location`.

    `list_files` gives names below the root and sizes of the files of a table, `read` the bytes of
    one from a start to before an end.
    """

    protocol = PROTOCOL
    cachable = False

    def __init__(
        self,
        location: str,
        list_files: Callable[[str], Mapping[str, int]],
        read: Callable[[str, int, int], bytes],
    ) -> None:
        super().__init__()
        self._location, self._list, self._read = location, list_files, read

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return path

    def glob(self, path: str, maxdepth: int | None = None, **_: Any) -> list[str]:
        """The files of a table whose path matches a pattern."""
        # DuckDB's patterns, in which `*` ends at a slash; `[!.]` and `[[]` are as in fnmatch.
        pattern = re.compile(translate(path).replace(".*", "[^/]*"))
        names = self._list(self._name(path).partition("/")[0])
        return [each for name in names if pattern.match(each := f"{self._location}/{name}")]

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        name = self._name(path)
        size = self._list(name.partition("/")[0]).get(name)
        if size is None:
            raise FileNotFoundError(path)
        return {"name": path, "size": size, "type": "file"}

    def modified(self, path: str) -> datetime:
        return _UNCHANGED

    def read(self, path: str, start: int, end: int) -> bytes:
        return self._read(self._name(path), start, end)

    def _open(self, path: str, mode: str = "rb", *_: Any, **__: Any) -> _File:
        return _File(self, path, mode, cache_type="none", size=self.info(path)["size"])

    def _name(self, path: str) -> str:
        return path.removeprefix(f"{self._location}/")
