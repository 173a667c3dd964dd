"""Processes of safe mode that are started before they are asked: `WarmWorkers(root)`.

Most of what `safe.ask` takes is starting Python and opening the warehouse. Each process still
answers one statement and ends, so no statement finds anything that another left
(docs/decisions/0013); only the waiting is done beforehand.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from axes.warehouse.safe import DEFAULT_LIMITS, Limits, Worker


class WarmWorkers:
    """Keeps `count` workers waiting, and warms another for each that was used."""

    def __init__(self, root: Path, limits: Limits = DEFAULT_LIMITS, *, count: int = 2) -> None:
        self.root = root
        self.limits = limits
        self._count = count
        self._waiting: deque[Worker] = deque()
        self._lock = threading.Lock()
        self._is_closed = False
        self._fill()

    @contextmanager
    def worker(self) -> Iterator[Worker]:
        """A worker to ask once (`safe.ask`, with these `root` and `limits`); ended afterwards.

        The oldest that waits, else a new one. Its successor is started afterwards: starting takes
        a processor that the statement has a use for.
        """
        taken = self._take()
        try:
            yield taken
        finally:
            taken.stop()
            self._fill()

    def close(self) -> None:
        """End those that wait; none is started any more."""
        with self._lock:
            self._is_closed = True
            while self._waiting:
                self._waiting.popleft().stop()

    def _take(self) -> Worker:
        with self._lock:
            while self._waiting:
                worker = self._waiting.popleft()
                # It ends by itself where the warehouse could not be opened then.
                if not worker.is_over:
                    return worker
        return Worker(self.root, self.limits)

    def _fill(self) -> None:
        with self._lock:
            while not self._is_closed and len(self._waiting) < self._count:
                self._waiting.append(Worker(self.root, self.limits))
