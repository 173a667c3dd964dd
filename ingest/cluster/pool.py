"""Workers of Ray, the chunks they run, and the commits of this process, the driver.

The driver hands out whole batches, planned as one process would run them, so that rows have the
same bits. A chunk is some batches: about 20 seconds or one file, less at the end so that no worker
waits for another. A chunk that died with its worker is handed to another.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from axes.ingest.cluster.worker import Opening, Worker, Written, versions
from axes.ingest.forward.activation_keys import Items
from axes.ingest.models.config import one_line
from axes.warehouse.errors import AxesError, ModelError
from axes.warehouse.names import counted
from axes.warehouse.progress import announce, waiting
from axes.warehouse.writer import CHUNK_BYTES, SentFile

if TYPE_CHECKING:
    from axes.ingest.jobs import ModelRow, RunningJob
    from axes.ingest.models.load import LoadedModel
    from axes.ingest.requests import ModelRequest
    from axes.warehouse.runs import Run

# Seconds of a chunk: at most, and at least, where the batches allow it.
_MAX_SECONDS, _MIN_SECONDS = 20.0, 2.0
# Chunks that a worker has at once: it does not wait for the next, nor for commits.
_DEPTH = 2
# How often a chunk, or the start of a worker, is tried.
_ATTEMPTS = 4

Done = Callable[[int], None]


class WholeBatch(NamedTuple):
    """The keys of a batch, its units of progress, and the bytes that it gives."""

    names: list[str]
    units: int
    size: int


@dataclass(frozen=True)
class Chunk:
    """Batches that a worker runs as one `task`; `context` and the rest are the driver's.

    `left_out` are rows of the task's prompts that another job has stored meanwhile.
    """

    task: Any
    units: int
    context: Any
    left_out: Mapping[str, Items] = field(default_factory=dict)
    attempts: int = 1


class Finished(NamedTuple):
    """A chunk whose files are written."""

    chunk: Chunk
    files: list[SentFile]


@dataclass(eq=False)
class _Hand:
    """A worker, whether it has loaded the model, and its entry in the job's row of `runs`."""

    actor: Any
    share: dict[str, Any]
    is_ready: bool = False


class Pool:
    """`count` workers with so many GPUs or CPUs each."""

    def __init__(self, ray: Any, count: int, *, gpus: int, cpus: float) -> None:
        self._ray, self._count, self._gpus, self._cpus = ray, count, gpus, cpus
        self._hands: list[_Hand] = []
        # What workers are doing; without a chunk they start.
        self._pending: dict[Any, tuple[_Hand, Chunk | None]] = {}
        self._batches: deque[WholeBatch] = deque()
        self._again: deque[Chunk] = deque()
        self._failed_starts = 0
        # Units per second of a worker.
        self._rate = 0.0

    @property
    def device(self) -> str:
        """The device of a worker's model."""
        return {0: "cpu", 1: "cuda"}.get(self._gpus, "auto")

    def start(
        self,
        running: RunningJob,
        request: ModelRequest,
        build: Callable[[Run, LoadedModel], Any],
        commit: Callable[[Run, Sequence[Finished]], list[Chunk]],
    ) -> ModelRow:
        """Start the workers, and wait for the first; returns the model's row.

        `commit` makes the rows of finished chunks count, and returns chunks to run again.
        """
        import torch

        job, self._run, self._commit = running.job, running.run, commit
        self._opening = Opening(
            root=job.root,
            spec=job.spec,
            request=replace(request, device=job.device, dtype=job.identity.dtype),
            model_id=job.identity.model_id,
            versions=versions(),
            run_id=self._run.run_id,
            threads=max(min(int(self._cpus), torch.get_num_threads()), 1),
            build=build,
        )
        for _ in range(self._count):
            self._hire()
        each = f"{self._gpus} GPU" if self._gpus else f"{self._cpus:g} CPU"
        with waiting(f"start {counted(self._count, 'worker')} with {each} each"):
            while not any(hand.is_ready for hand in self._hands):
                self._step(lambda _: running.check_interrupt())
        return self._row

    def ask(self, method: str, task: Any) -> Any:
        """What a method of a worker's session gives."""
        while True:
            for hand in sorted(self._ready(), key=self._load_of):
                answer = self._answer(hand.actor.ask.remote(method, task), hand, None)
                if answer is not None:
                    return answer
            self._step(lambda _: None)

    def run(
        self,
        batches: Sequence[WholeBatch],
        task: Callable[[list[str]], Any],
        context: Any,
        done: Done,
    ) -> None:
        """Hand out batches, as the task of their keys; returns when workers have the last.

        `done` gets the units of what was committed.
        """
        self._batches, self._task, self._context = deque(batches), task, context
        with self._ending_well():
            while self._batches:
                self._hand_out()
                if self._batches:
                    self._step(done)

    def finish(self, done: Done) -> None:
        """Wait for what workers have, and commit it."""
        with self._ending_well():
            while self._again or any(chunk for _, chunk in self._pending.values()):
                self._hand_out()
                self._step(done)

    def close(self) -> None:
        """End the workers, whatever they are doing."""
        for hand in self._hands:
            self._ray.kill(hand.actor)
        self._hands, self._pending = [], {}

    @contextmanager
    def _ending_well(self) -> Iterator[None]:
        """At the first Ctrl-C, let workers end their chunks, and commit those."""
        try:
            yield
        except KeyboardInterrupt:
            self._batches.clear()
            self._again.clear()
            while any(chunk for _, chunk in self._pending.values()):
                self._step(lambda _: None)
            raise

    def _step(self, done: Done) -> None:
        """Wait for an answer, for a second at most, and commit what is finished."""
        done(0)
        refs, finished = list(self._pending), []
        ready, _ = self._ray.wait(refs, num_returns=1, timeout=1.0)
        if ready:
            ready, _ = self._ray.wait(refs, num_returns=len(refs), timeout=0)
        for ref in ready:
            hand, chunk = self._pending.pop(ref)
            answer = self._answer(ref, hand, chunk)
            if answer is None:
                continue
            if chunk is None:
                self._row, hand.share["node"] = answer
                hand.is_ready, self._failed_starts = True, 0
            else:
                self._count_in(hand, chunk, answer)
                finished.append(Finished(chunk, answer.files))
        self._hand_out()
        if finished:
            again = self._commit(self._run, finished)
            self._again += again
            done(sum(each.chunk.units for each in finished) - sum(each.units for each in again))

    def _answer(self, ref: Any, hand: _Hand, chunk: Chunk | None) -> Any:
        """What a worker answers; None where it is lost, which is then made good.

        Raises its domain error, or `ModelError` for any other.
        """
        from ray.exceptions import RayError, RayTaskError

        try:
            return self._ray.get(ref)
        except RayTaskError as error:
            cause = error.cause
            if isinstance(cause, AxesError):
                raise cause from None
            place = hand.share.get("node", "a machine that is starting")
            reason = f"{type(cause).__name__}: {one_line(cause)}"
            raise ModelError(f"a worker on {place} failed: {reason}") from None
        except RayError as error:
            self._replace(hand, chunk, error)
            return None

    def _replace(self, hand: _Hand, chunk: Chunk | None, error: Exception) -> None:
        """Hire another worker for a lost one, and have its chunk run again."""
        found = re.search(r"because (.+?)\.", one_line(error))
        reason = found[1] if found else type(error).__name__
        if chunk is not None:
            self._again.append(replace(chunk, attempts=chunk.attempts + 1))
        if hand in self._hands:
            self._hands.remove(hand)
            self._failed_starts += not hand.is_ready
            announce(f"warning: a worker was lost ({reason}); another one runs its prompts")
            self._hire()
        tries = max(self._failed_starts // self._count, chunk.attempts if chunk else 0)
        if tries >= _ATTEMPTS:
            raise ModelError(
                f"{tries} workers in a row were lost with the same work ({reason}): is there "
                "enough memory? The logs of Ray on their machines say more"
            ) from None

    def _hire(self) -> None:
        actor = self._ray.remote(Worker).options(num_cpus=self._cpus, num_gpus=self._gpus).remote()
        share = {"chunks": 0, "rows": 0, "tokens": 0, "seconds": 0.0}
        hand = _Hand(actor, share)
        self._hands.append(hand)
        self._pending[actor.start.remote(self._opening)] = hand, None

    def _hand_out(self) -> None:
        """Give each worker the chunks that it may have, those without one first."""
        for depth in range(1, _DEPTH + 1):
            for hand in self._ready():
                if self._load_of(hand) < depth and (chunk := self._next_chunk()) is not None:
                    ref = hand.actor.run.remote(chunk.task, chunk.left_out)
                    self._pending[ref] = hand, chunk

    def _next_chunk(self) -> Chunk | None:
        if self._again:
            return self._again.popleft()
        if not self._batches:
            return None
        remaining = sum(batch.units for batch in self._batches) / (self._count * _DEPTH)
        limit = min(max(remaining, _MIN_SECONDS * self._rate), _MAX_SECONDS * self._rate)
        first = self._batches.popleft()
        names, units, size = list(first.names), first.units, first.size
        while self._batches:
            batch = self._batches[0]
            if units + batch.units > limit or size + batch.size > CHUNK_BYTES:
                break
            names += self._batches.popleft().names
            units, size = units + batch.units, size + batch.size
        return Chunk(self._task(names), units, self._context)

    def _ready(self) -> list[_Hand]:
        return [hand for hand in self._hands if hand.is_ready]

    def _load_of(self, hand: _Hand) -> int:
        return sum(other is hand for other, _ in self._pending.values())

    def _count_in(self, hand: _Hand, chunk: Chunk, written: Written) -> None:
        """Add what a chunk took to the job's row of `runs`."""
        run, share = self._run, hand.share
        self._rate = chunk.units / max(written.seconds, 1e-6)
        if not share["chunks"]:
            run.shares.append(share)
        share["chunks"] += 1
        share["rows"] += sum(file.record.rows for file in written.files)
        share["tokens"] += written.tokens
        share["seconds"] = round(share["seconds"] + written.seconds, 3)
        run.tokens += written.tokens
        run.messages += [each for each in written.messages if each not in run.messages]
        for stage, seconds in written.stage_seconds.items():
            run.stage_seconds[stage] = run.stage_seconds.get(stage, 0.0) + seconds
