"""The job: prompts through a model, one pooled vector per prompt, layer, site and pooling.

Resumable by row: rows that are stored under the same key (model version, prompt, layer, site,
pooling, template) are not computed again, and weights are not even loaded when nothing is missing.
Prompts are planned a slice at a time. On Ray, workers run the batches that one process would.
"""

from __future__ import annotations

import itertools
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from axes.ingest.activation_writer import ChunkWriter
from axes.ingest.cluster.placement import Spread, placed
from axes.ingest.cluster.pool import Ask, WholeBatch
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
from axes.ingest.jobs import IngestSummary, Job, Part, open_job
from axes.ingest.models.load import LoadedModel, non_finite, require_layers
from axes.ingest.models.registry import VLLM, VLLM_ROOM, ModelSpec
from axes.ingest.prompts import count_prompts, prompt_slices
from axes.ingest.requests import LOCAL, ActivationRequest, Placement
from axes.ingest.sinks import Outbox, StoredRows
from axes.warehouse.errors import ModelError, RootError
from axes.warehouse.names import counted
from axes.warehouse.runs import Run
from axes.warehouse.tables.index import refresh_index
from axes.warehouse.writer import SentFile, commit_rows

if TYPE_CHECKING:
    from axes.ingest.forward.vllm_engine import VllmEngine, VllmEngines


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
        if pool is not None and spec.engine == VLLM:
            raise ModelError("--engine vllm runs on this machine: leave --on ray out")
        parameters = {**request.parameters(), **placement.parameters(), "poolings": list(poolings)}
        running_job = job.running("ingest activations", parameters)
        with _engines(job, request, poolings) as engines, running_job as running:
            stored = _stored(job, request, running.run)
            options = {"request": request, "poolings": poolings, "engines": engines}
            spread = Spread(running, pool, Session, options, stored)
            parts = _plan(job, request, poolings, running.run, stored)
            prompt_count, new_count = spread.compute("ingest", "tok", parts, total)
            if new_count:  # For a resume on another machine.
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
    with _engines(job, request, poolings) as engines:
        for part in _plan(job, request, poolings, run, _stored(job, request, run)):
            prompt_count += part.prompt_count
            new_count += part.new_count
            for group in part.groups:
                session = session or Session(run, job.load(), request, poolings, engines)
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

    def part(self, names: Iterable[str]) -> Group:
        """The group with these prompts alone."""
        return replace(self, rendered={name: self.rendered[name] for name in names})


def _groups(rendered: Mapping[str, Rendered], missing: Mapping[str, Items]) -> list[Group]:
    """Prompts that miss the same items are run together; usually that is one group."""
    groups: dict[Items, dict[str, Rendered]] = defaultdict(dict)
    for prompt_id, prompt in rendered.items():
        groups[missing[prompt_id]][prompt_id] = prompt
    return [Group(sorted(items), each, _prefix_rows(each)) for items, each in groups.items()]


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


def _engines(
    job: Job, request: ActivationRequest, poolings: Mapping[str, Pooling]
) -> AbstractContextManager[VllmEngines | None]:
    """With `--engine vllm` what starts its engines, and ends the last one."""
    if job.spec.engine != VLLM:
        return nullcontext()
    from axes.ingest.forward.vllm_engine import VllmEngines

    items = requested_items(request, poolings, job.layer_count())
    return closing(VllmEngines(job, items, poolings))


def _stored(job: Job, request: ActivationRequest, run: Run) -> StoredRows:
    key = (job.root, job.spec.name, job.identity.model_id, request.rendering.name)
    with run.stage("plan"):
        return StoredRows(job.root, job.spec.name, lambda: stored_items(*key))


def _plan(
    job: Job,
    request: ActivationRequest,
    poolings: Mapping[str, Pooling],
    run: Run,
    stored: StoredRows,
) -> Iterator[Part]:
    """What is missing of the job's prompts, slice by slice."""
    layer_count = job.layer_count()
    require_layers(job.spec.name, layer_count, [*(request.layers or ()), *request.token_layers])
    requested = requested_items(request, poolings, layer_count)
    for prompts in prompt_slices(job.root, request.prompt_sets):
        texts = {each.prompt_id: each.text for each in prompts if job.shard.takes(each.prompt_id)}
        with run.stage("plan"):
            missing = missing_items(requested, texts, stored.at_start)
        with run.stage("tokenise"):
            rendered = job.render_usable(
                {prompt_id: texts[prompt_id] for prompt_id in missing},
                request,
                poolings=list(poolings.values()),
                room=VLLM_ROOM if job.spec.engine == VLLM else 0,
                skipped=run.skipped,
            )
        tokens = sum(len(prompt.token_ids) for prompt in rendered.values())
        groups = _groups(rendered, missing)
        yield Part(groups, tokens, not missing, len(texts), len(rendered))


class Session:
    """A loaded model at work, whose token budget shrinks where a batch does not fit the memory."""

    def __init__(
        self,
        run: Run,
        loaded: LoadedModel,
        request: ActivationRequest,
        poolings: Mapping[str, Pooling],
        engines: VllmEngines | None = None,
    ) -> None:
        self.run, self.loaded, self._request, self._poolings = run, loaded, request, poolings
        self._engines = engines
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

    def prepare(self, group: Group) -> Forward | VllmEngine:
        """What runs the items of a group; the last one is kept."""
        if self._engines is not None:
            longest = max(len(prompt.token_ids) for prompt in group.rendered.values())
            with self.run.stage("load"):
                return self._engines.engine(longest, self._batches.budget)
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

    @staticmethod
    def whole_batches(group: Group, request: ActivationRequest, ask: Ask) -> list[WholeBatch]:
        """The batches that a session makes of a group, with their tokens.

        A session is asked whether its model shares the prefix, if there is one.
        """
        has_prefix = request.shares_prefix and prefix_length(group.prefix_rows)
        lengths = _lengths(group, ask("shared", group.part([])) if has_prefix else 0)
        return [
            WholeBatch(names, sum(len(group.rendered[name].token_ids) for name in names))
            for names in plan_batches(lengths, request.token_budget)
        ]

    @staticmethod
    def commit(run: Run, sink: StoredRows, files: list[SentFile], groups: list[Group]) -> None:
        """Commit the files of groups; raises `RootError` where another job stored their rows."""
        with sink.turn():
            by_others = sink.by_others()
            for group in groups if by_others else ():
                if any(by_others.get(name, set()) & {*group.items} for name in group.rendered):
                    raise RootError(
                        "another job has stored rows that this one computed: run it again, and "
                        "it goes on with those that are missing"
                    )
            sink.add(commit_rows(run.root, files))
        run.rows += sum(file.record.rows for file in files)

    def measure(self, forward: Forward | VllmEngine, group: Group) -> float:
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

    def _starter(self, forward: Forward | VllmEngine, group: Group) -> Callable[[list[str]], Batch]:
        return self.run.stage("forward")(
            lambda names: forward.start(names, [group.rendered[name] for name in names])
        )


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
