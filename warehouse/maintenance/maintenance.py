"""What the verbs that tend a root share: one at a time, and a place for what is out of use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from axes.warehouse.locks import locked

RETIRED = ".retired"


@contextmanager
def maintenance_lock(root: Path) -> Iterator[None]:
    """Held by repair, compact, vacuum and migrate; raises `RootError` while another one runs."""
    refusal = f"{root} is being repaired, compacted, vacuumed or migrated: wait for that to end"
    with locked(root, "maintenance", refusal=refusal):
        yield


def retired_folder(root: Path) -> Path:
    """A new folder for files taken out of use; `vacuum` deletes it after a while."""
    return root / RETIRED / f"{datetime.now(UTC):%Y%m%dT%H%M%S.%f}"
