"""Locks of a root on an object store: an object for each, which its holder puts again and again.

Who finds one waits. An object that its holder has not put again for `_LIFE` seconds, by the clock
of who waits, is of a process that was killed, and may be replaced. Every put is conditional on the
tag of the object before, so that of two processes one gets it; who has lost a lease commits nothing
more.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta

from axes.warehouse.errors import RootError
from axes.warehouse.render import echo
from axes.warehouse.storage.objects import Objects

FOLDER = ".leases"
# Seconds: until a lease counts as left behind, between two puts of its holder, and between looks.
_LIFE, _BEAT, _LOOK = 30.0, 5.0, 0.5


class Lease:
    """A lease that this process holds while its thread puts it again."""

    def __init__(self, objects: Objects, name: str) -> None:
        self.name = name
        self._objects, self._object = objects, f"{FOLDER}/{name}"
        self._tag = ""
        self._put_at = 0.0
        self._end = threading.Event()

    def require(self) -> None:
        """Raise `RootError` where another process may hold the lease by now."""
        if time.monotonic() - self._put_at >= _LIFE - _BEAT:
            raise RootError(
                f"{self._objects.root}: this job could not keep its lease {self.name}, and another "
                "may have taken it: run the same command again"
            )

    def take(self, notice: str | None, refusal: str | None) -> None:
        """Wait for the lease; with a `refusal`, only to see whether its holder lives."""
        seen, since, is_said = "", time.monotonic(), False
        while not self._put(seen if time.monotonic() - since >= _LIFE else ""):
            if not is_said:
                said = notice or f"waiting for the lease {self.name} of another job"
                echo(f"{said} (one that was killed holds it for {_LIFE:.0f} s)", err=True)
                is_said = True
            stored = self._objects.get(self._object)
            if (tag := stored[1] if stored else "") != seen:
                if seen and tag and refusal is not None:
                    raise RootError(refusal)
                seen, since = tag, time.monotonic()
            if tag:
                time.sleep(_LOOK)
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._thread.start()

    def release(self) -> None:
        self._end.set()
        self._thread.join()
        with suppress(RootError):
            stored = self._objects.get(self._object)
            if stored is not None and stored[1] == self._tag:
                self._objects.delete(self._object)

    def _put(self, tag: str) -> bool:
        """Put the object new, or in the place of the one with this tag."""
        asked_at, content = time.monotonic(), uuid.uuid4().hex.encode()
        if tag:
            put = self._objects.replace(self._object, content, tag)
        else:
            put = self._objects.put_new(self._object, content)
        if put is None:
            # Of a put whose answer was lost, the repetition finds the object of the first.
            stored = self._objects.get(self._object)
            put = stored[1] if stored is not None and stored[0] == content else None
        if put is not None:
            self._tag, self._put_at = put, asked_at
        return put is not None

    def _keep(self) -> None:
        while not self._end.wait(_BEAT):
            with suppress(RootError):  # The next may succeed, until the lease is too old.
                if not self._put(self._tag):
                    self._put_at = float("-inf")
                    return


def is_alive(put_at: datetime, now: datetime) -> bool:
    """Whether the holder of a lease that was last put then may run; both by the store's clock."""
    return now - put_at < timedelta(seconds=_LIFE)


@contextmanager
def leased(
    objects: Objects, name: str, *, notice: str | None = None, refusal: str | None = None
) -> Iterator[Lease]:
    """Hold the lease called `name`, waiting while another process holds it."""
    lease = Lease(objects, name)
    lease.take(notice, refusal)
    try:
        yield lease
    finally:
        lease.release()
