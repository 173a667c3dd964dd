"""Locks below a root: jobs that would get in each other's way take turns.

They are the kernel's, so that those of a killed process are free at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import click
from filelock import FileLock, Timeout

from axes.warehouse.errors import RootError

LOCKS = ".locks"


@contextmanager
def locked(
    root: Path, name: str, *, notice: str | None = None, refusal: str | None = None
) -> Iterator[None]:
    """Hold the lock called `name`, once whoever has it lets go.

    If that has to be waited for, `notice` is said; with a `refusal`, that is raised as `RootError`
    instead. So is what keeps the lock from being made, as on a read-only root.
    """
    path = root / LOCKS / f"{name}.lock"
    lock = FileLock(path)
    try:
        path.parent.mkdir(exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            if refusal is not None:
                raise RootError(refusal) from error
            if notice is not None:
                click.echo(notice, err=True)
            lock.acquire()
    except OSError as error:
        raise RootError(f"cannot write {path}: {error}") from error
    try:
        yield
    finally:
        lock.release()


def held_locks(root: Path) -> list[str]:
    """The names of the locks that somebody holds at this instant."""
    held = []
    for path in sorted((root / LOCKS).glob("*.lock")):
        try:
            with FileLock(path, timeout=0):
                pass
        except Timeout:
            held.append(path.stem)
        except OSError as error:
            raise RootError(f"cannot open {path}: {error}") from error
    return held


@contextmanager
def committing(root: Path, model: str) -> Iterator[None]:
    """Held while files of a model are written that have to agree with those that are there.

    By name, as the partitions are: jobs on two versions of a model write into the same folders.
    """
    with locked(root, f"{quote(model, safe='')}.commit"):
        yield
