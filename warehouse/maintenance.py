"""What the verbs that tend a root share: one at a time, and a place for what is out of use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from warehouse.errors import RootError
from warehouse.ledger import LOCKS

RETIRED = ".retired"


@contextmanager
def maintenance_lock(root: Path) -> Iterator[None]:
    """Held by repair, compact, vacuum and migrate; raises `RootError` while another one runs."""
    folder = root / LOCKS
    folder.mkdir(exist_ok=True)
    try:
        with FileLock(folder / "maintenance.lock", timeout=0):
            yield
    except Timeout as error:
        raise RootError(
            f"{root} is being repaired, compacted, vacuumed or migrated: wait for that to end"
        ) from error


def retired_folder(root: Path) -> Path:
    """A new folder for files taken out of use; `vacuum` deletes it after a while."""
    return root / RETIRED / f"{datetime.now(UTC):%Y%m%dT%H%M%S.%f}"
