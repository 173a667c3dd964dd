"""Files and folders on the disk: written whole, flushed with their names, never through a link.

A name from data becomes a path in `inside` alone, and what a stored file holds is read by
`read_file`: regular files, without waiting, up to a size.

A root may come from somebody else. A link in it would lead commands that write and delete out of
it, and a pipe would let them wait for ever. So no command opens a root with either, and no writer
goes through a link that came later.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path, PurePosixPath
from typing import Any

from axes.warehouse.errors import RootError

LOCKS = ".locks"
TEMPORARY = ".tmp"
QUARANTINE = ".quarantine"
RETIRED = ".retired"
# More than a ledger of a million files has.
_MAX_BYTES = 1 << 30


def inside(folder: Path, name: str) -> Path:
    """The path below `folder` that data names; raises `RootError` for a name that is no such path.

    >>> inside(Path("lake"), "prompts/a.parquet").as_posix()
    'lake/prompts/a.parquet'
    """
    path = PurePosixPath(name) if isinstance(name, str) else PurePosixPath()
    if not path.parts or path.is_absolute() or {"..", "~"} & {*path.parts} or "\0" in name:
        raise RootError(f"{name!r} is no name of a file in {folder}")
    return folder / path


def open_regular(path: Path) -> BufferedReader:
    """A regular file to read from; raises `RootError` for anything else, and `OSError`."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise RootError(f"{path} is a folder, pipe, socket or device, and no file")
    return os.fdopen(descriptor, "rb")


def read_file(path: Path, max_bytes: int = _MAX_BYTES) -> bytes:
    """The bytes of a regular file; raises `RootError` for others and larger ones, and `OSError`."""
    with open_regular(path) as file:
        if os.fstat(file.fileno()).st_size > max_bytes:
            raise RootError(f"{path} has more than {max_bytes:,} bytes")
        return file.read(max_bytes)


def parse_json(content: bytes | str) -> Any:
    """The value of a text in JSON; raises `ValueError`, for one that nests too deep as well."""
    try:
        return json.loads(content)
    except RecursionError as error:
        raise ValueError("nests too deep") from error


def find_irregular(folder: Path) -> Iterator[Path]:
    """Links, pipes, sockets and devices below a folder.

    Not among the files set aside, which no command reads or writes again.
    """
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                if entry.name not in (QUARANTINE, RETIRED):
                    yield from find_irregular(Path(entry.path))
            elif not entry.is_file(follow_symlinks=False):
                yield Path(entry.path)


def require_no_link(root: Path, path: Path) -> Path:
    """`path` itself; raises `RootError` where it, or a folder between `root` and it, is a link."""
    for part in (path, *path.parents):
        if part == root:
            break
        if part.is_symlink():
            raise RootError(
                f"{part} is a link, and could lead out of the warehouse: delete it, or put what "
                "it leads to in its place"
            )
    return path


def make_folder(root: Path, folder: Path) -> Path:
    """Make `folder` and those between `root` and it, their names on the disk; none is a link."""
    require_no_link(root, folder)
    missing = [part for part in (folder, *folder.parents) if not part.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for part in missing:
        sync_folder(part.parent)
    return folder


@contextmanager
def replacing(path: Path, scratch: Path | None = None) -> Iterator[Path]:
    """A path to write to instead, which takes the place of `path` if the body does not fail.

    It has the same name in a new folder, in `scratch` or next to `path`. Other files that the body
    writes there come along. A device or pipe is written to directly.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        yield path
        return
    if scratch is None:  # The user's link to a file stays; in a root there are none.
        path = path.resolve()
    prefix, folder = f".{path.name[:100]}.", scratch or path.parent
    try:
        holder = tempfile.TemporaryDirectory(prefix=prefix, suffix=".tmp", dir=folder)
    except OSError as error:  # It names the folder that could not be made, not the file.
        raise type(error)(error.errno, error.strerror, str(path)) from error
    try:
        with holder as name:
            yield Path(name) / path.name
            for written in sorted(Path(name).iterdir(), key=lambda file: file.name == path.name):
                _move(written, path.with_name(written.name))
        sync_folder(path.parent)
    except Exception as error:
        # Of a full disk not every library says which file, and safetensors has an error of its own.
        if getattr(error, "filename", None) or "No space left" not in str(error):
            raise
        raise OSError(errno.ENOSPC, "No space left on device", str(path)) from error


def _move(written: Path, target: Path) -> None:
    """Put a new file in its place; into a folder that exists its files one by one."""
    inner = list(written.iterdir()) if written.is_dir() else []
    if target.is_dir() and inner:
        for path in inner:
            _move(path, target / path.name)
        return
    for path in (*inner, written):
        sync_folder(path)
    written.replace(target)


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder, or the bytes of a file, to the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
