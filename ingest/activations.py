"""The job: prompts through a model, one pooled vector per prompt, layer, site and pooling.

Resumable by row: rows that are stored under the same key (model version, prompt, layer, site,
pooling, template) are not computed again, and weights are not even loaded when nothing is missing.
"""

from __future__ import annotations

import itertools
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from axes.ingest.activation_writer import ChunkWriter, StoredRows
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
from axes.ingest.forward.prefix_cache import share_prefix
from axes.ingest.forward.recording import find_points
from axes.ingest.forward.templates import Rendered
from axes.ingest.jobs import IngestSummary, Job, open_job
from axes.ingest.models.load import LoadedModel, non_finite, require_layers
from axes.ingest.models.registry import ModelSpec
from axes.ingest.prompts import read_prompts
from axes.ingest.requests import ActivationRequest
from axes.warehouse.names import counted
from axes.warehouse.runs import Run
from axes.warehouse.tables.index import refresh_index


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


def ingest_activations(root: Path, spec: ModelSpec, request: ActivationRequest) -> IngestSummary:
    """Store the requested activations that are missing.

    Raises `PromptError`, `ModelError`, `LayerError` or `NonFiniteError`; rows committed before an
    error stay, and so do those before Ctrl-C, which is raised as KeyboardInterrupt when the batch
    is done.
    """
    job, poolings, texts = _open(root, spec, request)
    parameters = {**request.parameters(), "poolings": list(poolings)}
    with job.running("ingest activations", parameters) as running:
        work = _find_work(job, request, poolings, texts, running.run)

        def compute(loaded: LoadedModel, done: Callable[[int], None]) -> None:
            session = _Session(running.run, loaded, work)
            for items, prompt_ids in work.groups():
                session.run_group(items, prompt_ids, done)

        token_count = sum(len(prompt.token_ids) for prompt in work.rendered.values())
        running.compute("ingest", token_count, "tok", compute, is_complete=not work.missing)
        if work.missing:  # For a resume on another machine.
            refresh_index(root, spec.name, is_shared=True)
    return job.summary(running.run, work.prompt_count, len(work.rendered))


def plan_activations(root: Path, spec: ModelSpec, request: ActivationRequest) -> IngestPlan:
    """What `ingest_activations` would do, timed on one batch; nothing is written.

    Raises what it would raise before its first batch.
    """
    job, poolings, texts = _open(root, spec, request)
    run = Run(root, "plan", {})
    work = _find_work(job, request, poolings, texts, run)
    rows, stored_bytes, dtype, rate = 0, 0, request.store_dtype, None
    if work.rendered:
        session = _Session(run, job.load(), work)
        for items, prompt_ids in work.groups():
            rendered = [work.rendered[name] for name in prompt_ids]
            forward = session.prepare(items, rendered)
            run.tokens += sum(len(row.token_ids) - forward.shared for row in rendered)
            new_rows = sum(
                1 if item.pooling else len(row.token_ids) for item in items for row in rendered
            )
            rows += new_rows
            stored_bytes += round(new_rows * row_bytes(session.loaded.d_model, None, dtype))
        rate = session.measure(forward, prompt_ids)
    return IngestPlan(
        model=spec.name,
        model_id=job.identity.model_id,
        prompt_count=work.prompt_count,
        new_count=len(work.rendered),
        rows=rows,
        tokens=run.tokens,
        bytes=stored_bytes,
        tokens_per_second=rate,
        seconds=None if rate is None else run.tokens / rate,
    )


@dataclass(frozen=True)
class _Work:
    """The usable prompts that miss rows, and which rows each of them misses."""

    request: ActivationRequest
    poolings: Mapping[str, Pooling]
    prompt_count: int
    rendered: dict[str, Rendered]
    missing: dict[str, Items]
    stored: StoredRows

    def groups(self) -> list[tuple[list[Item], list[str]]]:
        """Prompts that miss the same items are run together; usually that is one group."""
        groups: dict[Items, list[str]] = defaultdict(list)
        for prompt_id in self.rendered:
            groups[self.missing[prompt_id]].append(prompt_id)
        return [(sorted(items), prompt_ids) for items, prompt_ids in groups.items()]


def _open(
    root: Path, spec: ModelSpec, request: ActivationRequest
) -> tuple[Job, dict[str, Pooling], dict[str, str]]:
    """The job, its poolings by name, and the texts of its prompts by id."""
    # Prompts and poolings first: an unknown name is an error before a model is fetched.
    prompts = read_prompts(root, request.prompt_sets)
    suffix = "" if request.store_dtype == "float32" else f"+{request.store_dtype}"
    names = (f"{name.removesuffix(suffix)}{suffix}" for name in request.poolings)
    poolings = {pooling.name: pooling for pooling in map(find_pooling, names)}
    job = open_job(root, spec, request, shard=request.shard)
    taken = [prompt for prompt in prompts if job.shard.takes(prompt.prompt_id)]
    texts = {prompt.prompt_id: prompt.text for prompt in taken}
    return job, poolings, texts


def _find_work(
    job: Job,
    request: ActivationRequest,
    poolings: Mapping[str, Pooling],
    texts: Mapping[str, str],
    run: Run,
) -> _Work:
    layer_count = job.layer_count()
    require_layers(job.spec.name, layer_count, [*(request.layers or ()), *request.token_layers])
    key = (job.root, job.spec.name, job.identity.model_id, request.rendering.name)
    with run.stage("plan"):
        stored = StoredRows(job.root, job.spec.name, lambda: stored_items(*key))
        requested = requested_items(request, poolings, layer_count)
        missing = missing_items(requested, texts, stored.at_start)
    with run.stage("tokenise"):
        rendered = job.render_usable(
            {prompt_id: texts[prompt_id] for prompt_id in missing},
            request,
            poolings=list(poolings.values()),
            skipped=run.skipped,
        )
    return _Work(request, poolings, len(texts), rendered, missing, stored)


class _Session:
    """A loaded model at work, whose token budget shrinks where a batch does not fit the memory."""

    def __init__(self, run: Run, loaded: LoadedModel, work: _Work) -> None:
        self.run, self.loaded, self.work = run, loaded, work
        self.batches = Batches(loaded, run, work.request.token_budget)

    def run_group(
        self, items: list[Item], prompt_ids: list[str], done: Callable[[int], None]
    ) -> None:
        """Run prompts that miss the same items, and store them; `done(tokens)` after each batch."""
        rendered = [self.work.rendered[name] for name in prompt_ids]
        forward = self.prepare(items, rendered)
        template = self.work.request.rendering
        lengths, start = self._lengths(forward, prompt_ids), self._starter(forward)
        batches = (batch for _, batch in self.batches.compute(lengths, start, self._describe))
        with ChunkWriter(self.run, self.loaded, template, items, self.work.stored) as writer:
            # Each is stored when the next is already computed.
            for batch, _next in itertools.pairwise(itertools.chain(batches, [None])):
                assert batch is not None
                with self.run.stage("copy"):
                    _require_finite(self.loaded, batch)
                writer.add(batch)
                self.run.tokens += sum(lengths[name] for name in batch.prompt_ids)
                done(sum(len(row.token_ids) for row in batch.rendered))

    def prepare(self, items: list[Item], rendered: list[Rendered]) -> Forward:
        """What runs these items."""
        layers = sorted({item.layer for item in items})
        points = find_points(self.loaded, layers, sorted({item.site for item in items}))
        prefix = None
        if self.work.request.shares_prefix:
            recorded = dict.fromkeys(points[item.layer, item.site] for item in items)
            token_ids = [prompt.token_ids for prompt in rendered]
            prefix, remark = share_prefix(self.loaded, token_ids, list(recorded))
            if remark is not None:
                self.run.messages.append(remark)
        forward = Forward(self.run, self.loaded, points, items, self.work.poolings, prefix)
        self.run.tokens += forward.shared
        return forward

    def measure(self, forward: Forward, prompt_ids: list[str]) -> float:
        """Tokens per second of the middle batch; the first time through it is not counted."""
        lengths, start = self._lengths(forward, prompt_ids), self._starter(forward)
        started = None
        while started is None:
            planned = plan_batches(lengths, self.batches.budget)
            middle = planned[len(planned) // 2]
            started = self.batches.attempt(middle, start, self._describe)
        _ = started.vectors
        since = time.perf_counter()
        _ = start(middle).vectors
        return sum(lengths[name] for name in middle) / (time.perf_counter() - since)

    def _lengths(self, forward: Forward, prompt_ids: list[str]) -> dict[str, int]:
        token_ids = {name: self.work.rendered[name].token_ids for name in prompt_ids}
        return {name: len(ids) - forward.shared for name, ids in token_ids.items()}

    def _starter(self, forward: Forward) -> Callable[[list[str]], Batch]:
        rendered = self.work.rendered
        return self.run.stage("forward")(
            lambda names: forward.start(names, [rendered[name] for name in names])
        )

    def _describe(self, name: str) -> str:
        return f"a prompt of {counted(len(self.work.rendered[name].token_ids), 'token')}"


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
