"""The job: prompts through a model, one pooled vector per prompt, layer, site and pooling.

Resumable by row: rows that are stored under the same key (model version, prompt, layer, site,
pooling, template) are not computed again, and weights are not even loaded when nothing is missing.
Prompts are planned a slice at a time. On Ray, workers run the batches that one process would.
"""

from __future__ import annotations

import itertools
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from axes.ingest.activation_writer import ChunkWriter
from axes.ingest.cluster.placement import placed
from axes.ingest.cluster.pool import Chunk, Finished, Pool, WholeBatch
from axes.ingest.cost import row_bytes
from axes.ingest.forward.activation_keys import (
    Item,
    Items,
    missing_items,
    requested_items,
    stored_items,
)
from axes.ingest.forward.batching import Batches, plan_batches
from axes.ingest.forward.forward import Batch, Forward
from axes.ingest.forward.pooling import Pooling, find_pooling
from axes.ingest.forward.prefix_cache import prefix_length, share_prefix
from axes.ingest.forward.recording import find_points
from axes.ingest.forward.templates import Rendered
from axes.ingest.jobs import IngestSummary, Job, ModelRow, Part, open_job
from axes.ingest.models.load import LoadedModel, non_finite, require_layers
from axes.ingest.models.registry import ModelSpec
from axes.ingest.prompts import count_prompts, prompt_slices
from axes.ingest.requests import LOCAL, ActivationRequest, Placement
from axes.ingest.sinks import Outbox, StoredRows
from axes.warehouse.names import counted
from axes.warehouse.runs import Run
from axes.warehouse.tables.index import refresh_index
from axes.warehouse.writer import commit_rows


@dataclass(frozen=True)
class IngestPlan:
    """What a job would do: `rows` to write, `tokens` to run, `bytes` on the disk.

    `seconds` is the time of the forward passes at `tokens_per_second`, which is measured on one
    batch; both are None where no row is missing.
    """

    model: str
    model_id: str
    prompt_count: int
    new_count: int
    rows: int
    tokens: int
    bytes: int
    tokens_per_second: float | None
    seconds: float | None


def ingest_activations(
    root: Path, spec: ModelSpec, request: ActivationRequest, placement: Placement = LOCAL
) -> IngestSummary:
    """Store the requested activations that are missing.

    Raises `PromptError`, `ModelError`, `LayerError` or `NonFiniteError`; rows committed before an
    error stay, and so do those before Ctrl-C, which is raised as KeyboardInterrupt when the batch
    is done.
    """
    with placed(placement, root, request) as (root, request, pool):
        job, poolings, total = _open(root, spec, request)
        parameters = {**request.parameters(), **placement.parameters(), "poolings": list(poolings)}
        prompt_count, new_count, is_incomplete = 0, 0, False
        with job.running("ingest activations", parameters) as running:
            build = partial(Session, request=request, poolings=poolings)

            def parts() -> Iterator[Part[_Work]]:
                nonlocal prompt_count, new_count, is_incomplete
                for work in _plan(job, request, poolings, running.run):
                    prompt_count += work.prompt_count
                    new_count += len(work.rendered)
                    is_incomplete = is_incomplete or bool(work.missing)
                    yield Part(work, work.token_count, not work.missing, work.prompt_count)

            def compute(
                session: Session | _Spread, works: Iterable[_Work], done: Callable[[int], None]
            ) -> None:
                for work in works:
                    for group in work.groups():
                        session.run_group(group, work.stored, done)
                if pool is not None:
                    pool.finish(done)

            def load() -> tuple[Session | _Spread, ModelRow]:
                if pool is None:
                    loaded, row = running.load()
                    return build(running.run, loaded), row
                row = pool.start(running, request, build, _commit)
                return _Spread(pool, request, row["d_model"]), row

            running.compute("ingest", "tok", parts(), load, compute, prompt_count=total)
            if is_incomplete:  # For a resume on another machine.
                refresh_index(root, spec.name, is_shared=True)
    return job.summary(running.run, prompt_count, new_count)


def plan_activations(root: Path, spec: ModelSpec, request: ActivationRequest) -> IngestPlan:
    """What `ingest_activations` would do, timed on one batch; nothing is written.

    Raises what it would raise before its first batch.
    """
    job, poolings, _ = _open(root, spec, request)
    run = Run(root, "plan", {})
    prompt_count = new_count = rows = stored_bytes = 0
    session, rate = None, None
    for work in _plan(job, request, poolings, run):
        prompt_count += work.prompt_count
        new_count += len(work.rendered)
        for group in work.groups():
            session = session or Session(run, job.load(), request, poolings)
            forward, rendered = session.prepare(group), group.rendered.values()
            run.tokens += sum(len(row.token_ids) - forward.shared for row in rendered)
            new_rows = sum(
                1 if item.pooling else len(row.token_ids)
                for item in group.items
                for row in rendered
            )
            rows += new_rows
            d_model, dtype = session.loaded.d_model, request.store_dtype
            stored_bytes += round(new_rows * row_bytes(d_model, None, dtype))
            rate = rate or session.measure(forward, group)
    return IngestPlan(
        model=spec.name,
        model_id=job.identity.model_id,
        prompt_count=prompt_count,
        new_count=new_count,
        rows=rows,
        tokens=run.tokens,
        bytes=stored_bytes,
        tokens_per_second=rate,
        seconds=None if rate is None else run.tokens / rate,
    )


@dataclass(frozen=True)
class Group:
    """Prompts that miss the same items and are run together; on a worker, some of their batches.

    `prefix_rows` are token ids that say of all prompts what they begin with.
    """

    items: list[Item]
    rendered: Mapping[str, Rendered]
    prefix_rows: list[list[int]]


@dataclass(frozen=True)
class _Work:
    """The usable prompts of a slice that miss rows, and which rows each of them misses."""

    prompt_count: int
    rendered: dict[str, Rendered]
    missing: dict[str, Items]
    stored: StoredRows

    @property
    def token_count(self) -> int:
        return sum(len(prompt.token_ids) for prompt in self.rendered.values())

    def groups(self) -> list[Group]:
        """Prompts that miss the same items are run together; usually that is one group."""
        groups: dict[Items, dict[str, Rendered]] = defaultdict(dict)
        for prompt_id, prompt in self.rendered.items():
            groups[self.missing[prompt_id]][prompt_id] = prompt
        return [
            Group(sorted(items), rendered, _prefix_rows(rendered))
            for items, rendered in groups.items()
        ]


def _prefix_rows(rendered: Mapping[str, Rendered]) -> list[list[int]]:
    """The longest prompt, and those that have the prefix, and the room for it, of all."""
    rows = [prompt.token_ids for prompt in rendered.values()]
    if len(rows) < 2:
        return rows
    return [max(rows, key=len), min(rows), max(rows), min(rows, key=len)]


def _open(
    root: Path, spec: ModelSpec, request: ActivationRequest
) -> tuple[Job, dict[str, Pooling], int]:
    """The job, its poolings by name, and about how many prompts it has."""
    # Prompts and poolings first: an unknown name is an error before a model is fetched.
    total = count_prompts(root, request.prompt_sets)
    suffix = "" if request.store_dtype == "float32" else f"+{request.store_dtype}"
    names = (f"{name.removesuffix(suffix)}{suffix}" for name in request.poolings)
    poolings = {pooling.name: pooling for pooling in map(find_pooling, names)}
    job = open_job(root, spec, request, shard=request.shard)
    return job, poolings, total // job.shard.count


def _plan(
    job: Job, request: ActivationRequest, poolings: Mapping[str, Pooling], run: Run
) -> Iterator[_Work]:
    """What is missing of the job's prompts, slice by slice."""
    layer_count = job.layer_count()
    require_layers(job.spec.name, layer_count, [*(request.layers or ()), *request.token_layers])
    key = (job.root, job.spec.name, job.identity.model_id, request.rendering.name)
    requested = requested_items(request, poolings, layer_count)
    with run.stage("plan"):
        stored = StoredRows(job.root, job.spec.name, lambda: stored_items(*key))
    for prompts in prompt_slices(job.root, request.prompt_sets):
        texts = {each.prompt_id: each.text for each in prompts if job.shard.takes(each.prompt_id)}
        with run.stage("plan"):
            missing = missing_items(requested, texts, stored.at_start)
        with run.stage("tokenise"):
            rendered = job.render_usable(
                {prompt_id: texts[prompt_id] for prompt_id in missing},
                request,
                poolings=list(poolings.values()),
                skipped=run.skipped,
            )
        yield _Work(len(texts), rendered, missing, stored)


class Session:
    """A loaded model at work, whose token budget shrinks where a batch does not fit the memory."""

    def __init__(
        self,
        run: Run,
        loaded: LoadedModel,
        request: ActivationRequest,
        poolings: Mapping[str, Pooling],
    ) -> None:
        self.run, self.loaded, self._request, self._poolings = run, loaded, request, poolings
        self._batches = Batches(loaded, run, request.token_budget)
        self._prepared: tuple[object, Forward] | None = None

    def run_group(
        self, group: Group, sink: StoredRows | Outbox, done: Callable[[int], None]
    ) -> None:
        """Run a group, and write what it gives; `done(tokens)` after each batch."""
        forward, rendered = self.prepare(group), group.rendered
        lengths, start = _lengths(group, forward.shared), self._starter(forward, group)
        computed = self._batches.compute(lengths, start, partial(_describe, group))
        batches = (batch for _, batch in computed)
        template = self._request.rendering
        with ChunkWriter(self.run, self.loaded, template, group.items, sink) as writer:
            # Each is stored when the next is already computed.
            for batch, _next in itertools.pairwise(itertools.chain(batches, [None])):
                assert batch is not None
                with self.run.stage("copy"):
                    _require_finite(self.loaded, batch)
                writer.add(batch)
                self.run.tokens += sum(lengths[name] for name in batch.prompt_ids)
                done(sum(len(rendered[name].token_ids) for name in batch.prompt_ids))

    def prepare(self, group: Group) -> Forward:
        """What runs the items of a group; the last one is kept."""
        key = (group.items, group.prefix_rows)
        if self._prepared is not None and self._prepared[0] == key:
            return self._prepared[1]
        items = group.items
        layers = sorted({item.layer for item in items})
        points = find_points(self.loaded, layers, sorted({item.site for item in items}))
        prefix = None
        if self._request.shares_prefix:
            recorded = dict.fromkeys(points[item.layer, item.site] for item in items)
            prefix, remark = share_prefix(self.loaded, group.prefix_rows, list(recorded))
            if remark is not None:
                self.run.messages.append(remark)
        forward = Forward(self.run, self.loaded, points, items, self._poolings, prefix)
        self.run.tokens += forward.shared
        self._prepared = key, forward
        return forward

    def shared(self, group: Group) -> int:
        """How many tokens of each prompt are run once for all."""
        return self.prepare(group).shared

    def measure(self, forward: Forward, group: Group) -> float:
        """Tokens per second of the middle batch; the first time through it is not counted."""
        lengths, start = _lengths(group, forward.shared), self._starter(forward, group)
        started = None
        while started is None:
            planned = plan_batches(lengths, self._batches.budget)
            middle = planned[len(planned) // 2]
            started = self._batches.attempt(middle, start, partial(_describe, group))
        _ = started.vectors
        since = time.perf_counter()
        _ = start(middle).vectors
        return sum(lengths[name] for name in middle) / (time.perf_counter() - since)

    def _starter(self, forward: Forward, group: Group) -> Callable[[list[str]], Batch]:
        return self.run.stage("forward")(
            lambda names: forward.start(names, [group.rendered[name] for name in names])
        )


@dataclass(frozen=True)
class _Spread:
    """A pool of workers, each with a `Session`, in the place of one."""

    pool: Pool
    request: ActivationRequest
    d_model: int
    known_prefixes: dict[object, int] = field(default_factory=dict)

    def run_group(self, group: Group, stored: StoredRows, done: Callable[[int], None]) -> None:
        """Hand out the batches that a session would make; `done(tokens)` as they are committed."""
        lengths = _lengths(group, self._shared(group))
        batches = [
            WholeBatch(
                names,
                units=sum(len(group.rendered[name].token_ids) for name in names),
                size=sum(self._size(group, name) for name in names),
            )
            for names in plan_batches(lengths, self.request.token_budget)
        ]

        def task(names: list[str]) -> Group:
            return replace(group, rendered={name: group.rendered[name] for name in names})

        self.pool.run(batches, task, stored, done)

    def _shared(self, group: Group) -> int:
        """The length of the prefix, if there is one: a worker says whether the model can share it,
        once for all slices."""
        length = prefix_length(group.prefix_rows) if self.request.shares_prefix else 0
        key = (*group.items, *group.prefix_rows[0][:length])
        if length and key not in self.known_prefixes:
            self.known_prefixes[key] = self.pool.ask("shared", replace(group, rendered={}))
        return self.known_prefixes[key] if length else 0

    def _size(self, group: Group, name: str) -> int:
        """Bytes of a prompt's vectors."""
        length = len(group.rendered[name].token_ids)
        return 4 * self.d_model * sum(1 if item.pooling else length for item in group.items)


def _commit(run: Run, finished: Sequence[Finished]) -> list[Chunk]:
    """Commit what workers have written; chunks of which others wrote rows have to be run again."""
    again, files, stored = [], [], finished[0].chunk.context
    with stored.turn():
        by_others = stored.by_others()
        for chunk, written in finished:
            left_out = {name: by_others[name] for name in chunk.task.rendered if name in by_others}
            if left_out == chunk.left_out:
                files += written
            else:
                again.append(replace(chunk, left_out=left_out))
        stored.add(commit_rows(run.root, files))
    run.rows += sum(file.record.rows for file in files)
    return again


def _lengths(group: Group, shared: int) -> dict[str, int]:
    return {name: len(prompt.token_ids) - shared for name, prompt in group.rendered.items()}


def _describe(group: Group, name: str) -> str:
    return f"a prompt of {counted(len(group.rendered[name].token_ids), 'token')}"


def _require_finite(loaded: LoadedModel, batch: Batch) -> None:
    lengths = [len(row.token_ids) for row in batch.rendered]
    prompt_of_token = np.repeat(batch.prompt_ids, lengths)
    for item, vectors in batch.vectors.items():
        bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
        if len(bad):
            names = batch.prompt_ids if item.pooling else prompt_of_token
            place = f"at layer {item.layer} for prompt {names[bad[0]]}"
            if item.pooling.endswith("+float16"):
                place += ", rounded to float16: --store-dtype bfloat16 has room; else"
            raise non_finite(loaded, place)
