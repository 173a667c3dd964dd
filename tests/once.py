"""Folders that take long to make and that tests only read: made once for all workers of a run."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """The folder NAME of this run, which `make` fills; other workers wait until it is complete."""
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # Each worker has a folder of its own in the run's.
        base = base.parent
    folder, complete = base / "once" / name, base / "once" / f"{name}.complete"
    folder.parent.mkdir(exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not complete.exists():
            make(folder)
            complete.touch()
    return folder
