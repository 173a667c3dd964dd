"""Workers of Ray, the chunks they run, and the commits of this process, the driver.

The driver hands out whole batches, planned as one process would run them, so that rows have the
same bits on as many threads. A chunk is about 20 seconds of batches, less at the end so that no
worker waits for another. A chunk that died with its worker is handed to another.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from axes.ingest.cluster.worker import Opening, Worker, Written, versions
from axes.ingest.models.config import one_line
from axes.warehouse.errors import AxesError, ModelError
from axes.warehouse.names import counted
from axes.warehouse.progress import announce, waiting

if TYPE_CHECKING:
    from axes.ingest.jobs import ModelRow, RunningJob

# Seconds of a chunk: at most, and at least, where there are batches.
_MAX_SECONDS, _MIN_SECONDS = 20.0, 2.0
# Chunks that a worker has at once: it does not wait for the next, nor for commits.
_DEPTH = 2
# How often a chunk, or the start of a worker, is tried.
_ATTEMPTS = 4

Done = Callable[[int], None]
# What a method of a worker's session gives for a group.
Ask = Callable[[str, Any], Any]


class WholeBatch(NamedTuple):
    """The keys of a batch, and its units of progress."""

    names: list[str]
    units: int


@dataclass(frozen=True)
class Chunk:
    """Batches that a worker runs as one group; `sink` is where one process would write them."""

    group: Any
    units: int
    sink: Any
    attempts: int = 1


@dataclass(eq=False)
class _Hand:
    """A worker, whether it has loaded the model, and its entry in the job's row of `runs`."""

    actor: Any
    attempts: int
    is_ready: bool = False
    share: dict[str, Any] = field(
        default_factory=lambda: {"chunks": 0, "rows": 0, "tokens": 0, "seconds": 0.0}
    )


class Pool:
    """`count` workers with so many GPUs or CPUs each; in a job it stands for a session."""

    def __init__(self, ray: Any, count: int, *, gpus: int, cpus: float) -> None:
        self._ray, self._count, self._gpus, self._cpus = ray, count, gpus, cpus
        self._hands: list[_Hand] = []
        # What workers are doing; without a chunk they start.
        self._pending: dict[Any, tuple[_Hand, Chunk | None]] = {}
        self._batches: deque[WholeBatch] = deque()
        self._again: deque[Chunk] = deque()
        # Units per second of a worker.
        self._rate = 0.0

    @property
    def device(self) -> str:
        """The device of a worker's model."""
        return {0: "cpu", 1: "cuda"}.get(self._gpus, "auto")

    def start(self, running: RunningJob, kind: Any, options: Mapping[str, Any]) -> ModelRow:
        """Start the workers, and wait for the first; returns the model's row.

        Each has a session, `kind(run, loaded, **options)`; one option is the `request`. `kind`
        plans the `whole_batches` of a group, and makes its files count (`commit`).
        """
        import torch

        job, self._run, self._kind = running.job, running.run, kind
        device, dtype = job.device, job.identity.dtype
        self._request = replace(options["request"], device=device, dtype=dtype)
        self._done: Done = lambda _: running.check_interrupt()
        self._opening = Opening(
            root=job.root,
            spec=job.spec,
            request=self._request,
            model_id=job.identity.model_id,
            versions=versions(),
            run_id=self._run.run_id,
            threads=max(min(int(self._cpus), torch.get_num_threads()), 1),
            kind=kind,
            options=options,
        )
        for _ in range(self._count):
            self._hire()
        each = f"{self._gpus} GPU" if self._gpus else f"{self._cpus:g} CPU"
        with waiting(f"start {counted(self._count, 'worker')} with {each} each"):
            while not self._ready():
                self._step()
        return self._row

    def ask(self, method: str, group: Any) -> Any:
        """What a method of a worker's session gives."""
        while True:
            for hand in sorted(self._ready(), key=self._load_of):
                answer = self._answer(hand.actor.ask.remote(method, group), hand, None)
                if answer is not None:
                    return answer
            self._step()

    def run_group(self, group: Any, sink: Any, done: Done) -> None:
        """Hand out the batches of a group, and return when workers have the last.

        `done` gets the units of what was committed.
        """
        self._batches = deque(self._kind.whole_batches(group, self._request, self.ask))
        self._group, self._sink, self._done = group, sink, done
        while self._batches:
            self._hand_out()
            if self._batches:
                self._step()

    def finish(self) -> None:
        """Wait for what workers have, and commit it."""
        while self._again or any(chunk for _, chunk in self._pending.values()):
            self._hand_out()
            self._step()

    def close(self) -> None:
        """End the workers, whatever they are doing."""
        for hand in self._hands:
            self._ray.kill(hand.actor)

    def _step(self) -> None:
        """Wait for an answer, for a second at most, and commit what is finished."""
        self._done(0)
        refs, files = list(self._pending), []
        finished: list[Chunk] = []
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
                hand.is_ready, hand.attempts = True, 0
            else:
                self._count_in(hand, chunk, answer)
                finished.append(chunk)
                files += answer.files
        self._hand_out()
        if finished:
            groups = [chunk.group for chunk in finished]
            self._kind.commit(self._run, finished[0].sink, files, groups)
            self._done(sum(chunk.units for chunk in finished))

    def _answer(self, ref: Any, hand: _Hand, chunk: Chunk | None) -> Any:
        """What a worker answers; None where it is lost, and another one was hired.

        Raises its domain error, or `ModelError` for any other.
        """
        from ray.exceptions import RayError, RayTaskError

        try:
            return self._ray.get(ref)
        except RayTaskError as error:
            if isinstance(error.cause, AxesError):
                raise error.cause from None
            reason = f"{type(error.cause).__name__}: {one_line(error.cause)}"
            node = hand.share.get("node", "a machine that is starting")
            raise ModelError(f"a worker on {node} failed: {reason}") from None
        except RayError as error:
            found = re.search(r"because (.+?)\.", one_line(error))
            self._replace(hand, chunk, found[1] if found else type(error).__name__)
            return None

    def _replace(self, hand: _Hand, chunk: Chunk | None, reason: str) -> None:
        if chunk is not None:
            self._again.append(replace(chunk, attempts=chunk.attempts + 1))
        if hand in self._hands:
            self._hands.remove(hand)
            # One that cannot be reached may still hold its place.
            self._ray.kill(hand.actor)
            announce(f"warning: a worker was lost ({reason}); another one runs its prompts")
            self._hire(hand.attempts + 1)
        if (tries := max(hand.attempts, chunk.attempts if chunk else 0)) >= _ATTEMPTS:
            raise ModelError(
                f"{tries} workers in a row were lost with the same work ({reason}): is there "
                "enough memory? The logs of Ray on their machines say more"
            ) from None

    def _hire(self, attempts: int = 1) -> None:
        actor = self._ray.remote(Worker).options(num_cpus=self._cpus, num_gpus=self._gpus).remote()
        self._hands.append(_Hand(actor, attempts))
        self._pending[actor.start.remote(self._opening)] = self._hands[-1], None

    def _hand_out(self) -> None:
        """Give each worker the chunks that it may have, those without one first."""
        for depth in range(1, _DEPTH + 1):
            for hand in self._ready():
                if self._load_of(hand) < depth and (chunk := self._next_chunk()) is not None:
                    self._pending[hand.actor.run.remote(chunk.group)] = hand, chunk

    def _next_chunk(self) -> Chunk | None:
        if self._again:
            return self._again.popleft()
        if not self._batches:
            return None
        remaining = sum(batch.units for batch in self._batches) / (self._count * _DEPTH)
        limit = min(max(remaining, _MIN_SECONDS * self._rate), _MAX_SECONDS * self._rate)
        names, units = self._batches.popleft()
        while self._batches and units + self._batches[0].units <= limit:
            batch = self._batches.popleft()
            names, units = names + batch.names, units + batch.units
        return Chunk(self._group.part(names), units, self._sink)

    def _ready(self) -> list[_Hand]:
        return [hand for hand in self._hands if hand.is_ready]

    def _load_of(self, hand: _Hand) -> int:
        return sum(other is hand for other, _ in self._pending.values())

    def _count_in(self, hand: _Hand, chunk: Chunk, written: Written) -> None:
        """Add what a chunk took to the job's row of `runs`."""
        run, share, rows = self._run, hand.share, sum(file.record.rows for file in written.files)
        self._rate = chunk.units / max(written.seconds, 1e-6)
        if not share["chunks"]:
            run.shares.append(share)
        for name, value in zip(share, (1, rows, written.tokens, written.seconds), strict=False):
            share[name] = round(share[name] + value, 3)
        run.tokens += written.tokens
        run.messages += [each for each in written.messages if each not in run.messages]
        for stage, seconds in written.stage_seconds.items():
            run.stage_seconds[stage] = run.stage_seconds.get(stage, 0.0) + seconds
