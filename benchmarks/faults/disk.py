"""The calls by which a command changes the disk, counted in its own process, and what befalls one.

A process that calls `watch` can kill itself at a chosen call, before it, in the middle of a write
or after it; be refused it, as by a full or broken disk; or keep a journal of the calls, from which
`benchmarks.faults.power` works out what a power cut may leave. Files that C++ libraries write are
seen when they are flushed and renamed. Linux only.
"""

from __future__ import annotations

import builtins
import io
import json
import os
import signal
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypedDict

import axes.warehouse.storage.folder

Kind = Literal["none", "kill", "refusal", "power cut"]


@dataclass(frozen=True)
class Fault:
    """What happens at the call numbered `at`, from 0; `none` only counts.

    `is_after` kills once the call is done. A refusal raises `errno`; with `is_lasting`, at every
    later call that needs room, too. A power cut happens after the end where no call has its number.
    """

    kind: Kind = "none"
    at: int = -1
    is_after: bool = False
    errno: int = 0
    is_lasting: bool = False


class Event(TypedDict, total=False):
    """A change of a folder; folders are inodes, since they may move later.

    `spare` is a link to the bytes that the change took away.
    """

    call: str
    folder: int
    name: str
    to_folder: int
    to_name: str
    spare: str
    inode: int


class Journal(TypedDict):
    """All changes, in order, and how many bytes of each file were flushed, by inode."""

    events: list[Event]
    durable: dict[str, int]
    call_count: int


@dataclass
class Watch:
    """Counts the calls of this process below `folder`."""

    folder: Path
    fault: Fault
    journal: Path
    call_count: int = 0
    events: list[Event] = field(default_factory=list)
    durable: dict[str, int] = field(default_factory=dict)
    spare_count: int = 0

    def is_below(self, path: Any, dir_fd: int | None = None) -> bool:
        return f"{_absolute(path, dir_fd)}/".startswith(f"{self.folder}/")

    def call(self, act: Callable[[], Any], *, needs_room: bool = True) -> Any:
        """Do what was called for, unless the fault strikes."""
        number, self.call_count = self.call_count, self.call_count + 1
        fault = self.fault
        is_struck = number == fault.at
        if fault.kind == "kill" and is_struck:
            if fault.is_after:
                act()
            self.die()
        if fault.kind == "power cut" and is_struck:
            self.save()
            self.die()
        is_refused = is_struck or (fault.is_lasting and number > fault.at)
        if fault.kind == "refusal" and is_refused and needs_room:
            raise OSError(fault.errno, os.strerror(fault.errno))
        return act()

    def die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def save(self) -> None:
        """Write the journal, for what happens after the process; whole, since it may be killed."""
        content: Journal = {
            "events": self.events,
            "durable": self.durable,
            "call_count": self.call_count,
        }
        written = self.journal.with_suffix(".part")
        written.write_text(json.dumps(content))
        written.replace(self.journal)

    def note(self, call: str, path: str, **values: Any) -> None:
        """Add a change of the folder of `path` to the journal."""
        place = Path(path)
        event: Event = {"call": call, "folder": _inode(place.parent), "name": place.name, **values}
        self.events.append(event)

    def spare(self, path: str) -> dict[str, str]:
        """Keep the bytes of a file that is about to lose its name."""
        if self.fault.kind != "power cut" or not Path(path).is_file():
            return {}
        kept = self.journal.with_name(f"spare-{self.spare_count}")
        self.spare_count += 1
        _link(path, kept)
        return {"spare": str(kept)}


# As they were before `watch`.
_link, _open = os.link, io.open


def watch(folder: Path, fault: Fault, journal: Path) -> Watch:
    """Count this process's changes below `folder` from now on, and let `fault` strike.

    The process is no longer good for anything else.
    """
    watched = Watch(folder, fault, journal)
    for path in folder.rglob("*"):
        state = path.lstat()
        if stat.S_ISREG(state.st_mode):
            watched.durable[str(state.st_ino)] = state.st_size
    _watch_names(watched)
    _watch_folders(watched)
    _watch_files(watched)
    return watched


def _watch_names(watched: Watch) -> None:
    rename, replace, link, exchange = os.rename, os.replace, os.link, _folder.exchange

    def moving(real: Callable[..., None]) -> Callable[..., None]:
        def move(source: Any, target: Any, **options: Any) -> None:
            if not watched.is_below(target):
                return real(source, target, **options)

            def act() -> None:
                origin, place = _absolute(source), _absolute(target)
                spare = watched.spare(place)
                moved = {"to_folder": _inode(Path(place).parent), "to_name": Path(place).name}
                watched.note("rename", origin, **moved, **spare)
                real(source, target, **options)

            return watched.call(act)

        return move

    def linking(source: Any, target: Any, **options: Any) -> None:
        def act() -> None:
            link(source, target, **options)
            watched.note("create", _absolute(target))

        watched.call(act)

    def exchanging(first: Path, second: Path) -> None:
        def act() -> None:
            other = {"to_folder": _inode(second.parent), "to_name": second.name}
            watched.note("exchange", str(first), **other)
            exchange(first, second)

        watched.call(act)

    os.rename, os.replace = moving(rename), moving(replace)
    os.link = linking
    _folder.exchange = exchanging


def _watch_folders(watched: Watch) -> None:
    unlink, mkdir, rmdir = os.unlink, os.mkdir, os.rmdir

    def unlinking(path: Any, *, dir_fd: int | None = None) -> None:
        if not watched.is_below(path, dir_fd):
            return unlink(path, dir_fd=dir_fd)

        def act() -> None:
            place = _absolute(path, dir_fd)
            spare = watched.spare(place)
            unlink(path, dir_fd=dir_fd)
            watched.note("unlink", place, **spare)

        return watched.call(act, needs_room=False)

    def making(path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        if not watched.is_below(path, dir_fd):
            return mkdir(path, mode, dir_fd=dir_fd)

        def act() -> None:
            mkdir(path, mode, dir_fd=dir_fd)
            watched.note("create", _absolute(path, dir_fd))

        return watched.call(act)

    def removing(path: Any, *, dir_fd: int | None = None) -> None:
        if not watched.is_below(path, dir_fd):
            return rmdir(path, dir_fd=dir_fd)

        def act() -> None:
            place = _absolute(path, dir_fd)
            inode = _inode(Path(place))
            rmdir(path, dir_fd=dir_fd)
            watched.note("rmdir", place, inode=inode)

        return watched.call(act, needs_room=False)

    os.unlink = os.remove = unlinking
    os.mkdir, os.rmdir = making, removing


def _watch_files(watched: Watch) -> None:
    fsync = os.fsync

    def flushing(descriptor: Any) -> None:
        number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
        if not watched.is_below(_path_of(number)):
            return fsync(descriptor)

        def act() -> None:
            fsync(descriptor)
            state = os.fstat(number)
            if stat.S_ISDIR(state.st_mode):
                watched.events.append({"call": "flush", "folder": state.st_ino})
            else:
                watched.durable[str(state.st_ino)] = state.st_size

        return watched.call(act)

    def opening(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        is_written = not isinstance(file, int) and {*mode} & {*"wax+"}
        if not is_written or not watched.is_below(file):
            return _open(file, mode, *arguments, **options)

        def act() -> Any:
            is_new = not os.path.lexists(file)
            opened = _open(file, mode, *arguments, **options)
            if is_new:
                watched.note("create", _absolute(file))
            return _WatchedFile(opened, watched)

        return watched.call(act)

    os.fsync = flushing
    io.open = builtins.open = opening  # type: ignore[assignment]


class _WatchedFile:
    """A file whose writes are calls; a kill or refusal comes when half of one is on the disk."""

    def __init__(self, file: Any, watched: Watch) -> None:
        self._file, self._watched = file, watched

    def write(self, data: Any) -> int:
        fault = self._watched.fault
        if fault.at == self._watched.call_count and fault.kind in ("kill", "refusal"):
            content = data if isinstance(data, str) else bytes(data)
            self._file.write(content[: len(content) // 2])
            self._file.flush()
        return self._watched.call(lambda: self._file.write(data))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __iter__(self) -> Any:
        return iter(self._file)

    def __enter__(self) -> _WatchedFile:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()


def _absolute(path: Any, dir_fd: int | None = None) -> str:
    """The path as text, absolute and not resolved: the last part may be a link."""
    given = Path(os.fsdecode(path))
    return str((Path(_path_of(dir_fd)) if dir_fd is not None else Path.cwd()) / given)


def _path_of(descriptor: int) -> str:
    return str(Path(f"/proc/self/fd/{descriptor}").readlink())


def _inode(path: Path) -> int:
    return path.stat().st_ino


_folder = axes.warehouse.storage.folder
