"""The job: prompts through a model, one pooled vector per prompt, layer, site and pooling.

With axes, each vector is projected on them and not stored. Resumable by row: rows that are stored
under the same key (model version, prompt, layer, site, pooling, template; or axis) are not computed
again, and weights are not even loaded when nothing is missing. Prompts are planned a slice at a
time. On Ray, workers run the batches that one process would.
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
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from axes.ingest.activation_writer import ChunkWriter
from axes.ingest.cluster.placement import Spread, placed
from axes.ingest.cluster.pool import Ask, WholeBatch
from axes.ingest.cost import PROJECTION_BYTES, row_bytes
from axes.ingest.forward.activation_keys import (
    AxisItem,
    Item,
    Items,
    axis_readouts,
    missing_items,
    recorded_items,
    requested_axes,
    requested_items,
    stored_items,
    stored_projections,
)
from axes.ingest.forward.pooling import Pooling, find_pooling
from axes.ingest.forward.prefix_tree import (
    Family,
    Tokens,
    count_tokens,
    prefix_families,
    trial_rows,
)
from axes.ingest.forward.templates import Rendered
from axes.ingest.jobs import IngestSummary, Job, Part, open_job
from axes.ingest.models.load import LoadedModel, non_finite, require_layers
from axes.ingest.models.registry import VLLM, VLLM_ROOM, ModelSpec
from axes.ingest.prompts import count_prompts, prompt_slices
from axes.ingest.requests import LOCAL, ActivationRequest, Placement
from axes.ingest.sinks import Outbox, StoredRows
from axes.warehouse.axes import AxisReadout
from axes.warehouse.errors import ModelError, RootError
from axes.warehouse.names import counted
from axes.warehouse.runs import Run
from axes.warehouse.tables.index import refresh_index
from axes.warehouse.writer import SentFile, commit_rows

if TYPE_CHECKING:
    from axes.ingest.forward.forward import Batch, Forward
    from axes.ingest.forward.prefix_cache import PrefixPath
    from axes.ingest.forward.recording import Point
    from axes.ingest.forward.vllm_engine import VllmEngine, VllmEngines

Readouts = Mapping[AxisItem, AxisReadout]


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
    """Store the requested activations, or with axes the projections, that are missing.

    Raises `PromptError`, `ModelError`, `AxisError`, `LayerError` or `NonFiniteError`; rows
    committed before an error stay, and so do those before Ctrl-C, which is raised as
    KeyboardInterrupt when the batch is done.
    """
    with placed(placement, root, request) as (root, request, pool):
        job, poolings, readouts, total = _open(root, spec, request)
        if pool is not None and spec.engine == VLLM:
            raise ModelError("--engine vllm runs on this machine: leave --on ray out")
        resolved = {"poolings": list(poolings), "axes": [item.axis_id for item in readouts]}
        parameters = {**request.parameters(), **placement.parameters(), **resolved}
        running_job = job.running("ingest activations", parameters)
        with _engines(job, request, poolings, readouts) as engines, running_job as running:
            stored = _stored(job, request, readouts, running.run)
            options = {"request": request, "poolings": poolings, "readouts": readouts}
            spread = Spread(running, pool, Session, {**options, "engines": engines}, stored)
            parts = _plan(job, request, poolings, readouts, running.run, stored)
            prompt_count, new_count = spread.compute("ingest", "tok", parts, total)
            if new_count:  # For a resume on another machine.
                refresh_index(root, spec.name, is_shared=True)
    return job.summary(running.run, prompt_count, new_count)


def plan_activations(root: Path, spec: ModelSpec, request: ActivationRequest) -> IngestPlan:
    """What `ingest_activations` would do, timed on one batch; nothing is written.

    Raises what it would raise before its first batch.
    """
    job, poolings, readouts, _ = _open(root, spec, request)
    run = Run(root, "plan", {})
    prompt_count = new_count = rows = tokens = stored_bytes = 0
    session, rate = None, None
    with _engines(job, request, poolings, readouts) as engines:
        stored = _stored(job, request, readouts, run)
        for part in _plan(job, request, poolings, readouts, run, stored):
            prompt_count += part.prompt_count
            new_count += part.new_count
            for group in part.groups:
                session = session or Session(run, job.load(), request, poolings, readouts, engines)
                token_ids = group.token_ids
                tokens += count_tokens(group.planned(session.shares(group)), token_ids)
                new_rows = sum(
                    1 if item.pooling else len(row)
                    for item in group.items
                    for row in token_ids.values()
                )
                rows += new_rows
                d_model, dtype = session.loaded.d_model, request.store_dtype
                size = PROJECTION_BYTES if readouts else row_bytes(d_model, None, dtype)
                stored_bytes += round(new_rows * size)
                rate = rate or session.measure(group)
    return IngestPlan(
        model=spec.name,
        model_id=job.identity.model_id,
        prompt_count=prompt_count,
        new_count=new_count,
        rows=rows,
        tokens=tokens,
        bytes=stored_bytes,
        tokens_per_second=rate,
        seconds=None if rate is None else tokens / rate,
    )


@dataclass(frozen=True)
class Group:
    """Prompts that miss the same items and are run together; on a worker, some of their batches.

    `families` are what they are run after if the model gives the same after a prefix, which
    `trial` says of all prompts; there is none where nothing is shared.
    """

    items: list[Item | AxisItem]
    rendered: Mapping[str, Rendered]
    families: list[Family]
    trial: list[Tokens]

    @property
    def token_ids(self) -> dict[str, Tokens]:
        return {name: prompt.token_ids for name, prompt in self.rendered.items()}

    def planned(self, shares: bool) -> list[Family]:
        """The families that are run, each in batches of its own: one, where nothing is shared."""
        return self.families if shares else [Family([], (), list(self.rendered))]

    def part(self, names: Iterable[str]) -> Group:
        """The group with these prompts alone."""
        rendered = {name: self.rendered[name] for name in names}
        of_family = ([name for name in each.names if name in rendered] for each in self.families)
        pairs = zip(self.families, of_family, strict=True)
        families = [replace(each, names=some) for each, some in pairs if some]
        return replace(self, rendered=rendered, families=families)


def _groups(
    rendered: Mapping[str, Rendered], missing: Mapping[str, Items], request: ActivationRequest
) -> Iterator[Group]:
    """Prompts that miss the same items are run together; usually that is one group.

    Families are planned with the prompts that miss nothing, too: a job that goes on where it was
    cut off runs what is left as it would have, and its rows have the same bits.
    """
    complete = Group([], rendered, [], [])
    if request.shares_prefix:
        # A part of the prompts with a prefix has to save at least half a batch.
        families = prefix_families(complete.token_ids, request.token_budget // 2)
        trial = trial_rows(families, complete.token_ids)
        complete = replace(complete, families=families, trial=trial)
    groups: dict[Items, list[str]] = defaultdict(list)
    for prompt_id in rendered:
        if prompt_id in missing:
            groups[missing[prompt_id]].append(prompt_id)
    for items, names in groups.items():
        yield replace(complete.part(names), items=sorted(items))


def _open(
    root: Path, spec: ModelSpec, request: ActivationRequest
) -> tuple[Job, dict[str, Pooling], Readouts, int]:
    """The job, its poolings by name, its projections, and about how many prompts it has."""
    # Prompts, poolings, axes first: an unknown name is an error before a model is fetched.
    total = count_prompts(root, request.prompt_sets)
    suffix = "" if request.store_dtype == "float32" else f"+{request.store_dtype}"
    names = (f"{name.removesuffix(suffix)}{suffix}" for name in request.poolings)
    poolings = {pooling.name: pooling for pooling in map(find_pooling, names)}
    axes = requested_axes(root, request, poolings) if request.axes else []
    job = open_job(root, spec, request, shard=request.shard)
    readouts = axis_readouts(root, axes, spec.name, job.identity.model_id) if axes else {}
    if axes:
        poolings = {item.pooling: poolings[item.pooling] for item in readouts}
    return job, poolings, readouts, total // job.shard.count


def _engines(
    job: Job, request: ActivationRequest, poolings: Mapping[str, Pooling], readouts: Readouts
) -> AbstractContextManager[VllmEngines | None]:
    """With `--engine vllm` what starts its engines, and ends the last one."""
    if job.spec.engine != VLLM:
        return nullcontext()
    from axes.ingest.forward.vllm_engine import VllmEngines

    items = readouts or requested_items(request, poolings, job.layer_count())
    return closing(VllmEngines(job, recorded_items(items), poolings))


def _stored(job: Job, request: ActivationRequest, readouts: Readouts, run: Run) -> StoredRows:
    key = (job.root, job.spec.name, job.identity.model_id)
    with run.stage("plan"):
        if readouts:
            look_up = partial(stored_projections, *key, readouts)
            return StoredRows(job.root, job.spec.name, look_up, ("projections",))
        look_up = partial(stored_items, *key, request.rendering.name)
        return StoredRows(job.root, job.spec.name, look_up, ("activations", "prompt_tokens"))


def _plan(
    job: Job,
    request: ActivationRequest,
    poolings: Mapping[str, Pooling],
    readouts: Readouts,
    run: Run,
    stored: StoredRows,
) -> Iterator[Part]:
    """What is missing of the job's prompts, slice by slice."""
    layer_count = job.layer_count()
    requested = frozenset(readouts) or requested_items(request, poolings, layer_count)
    require_layers(job.spec.name, layer_count, sorted({item.layer for item in requested}))
    for prompts in prompt_slices(job.root, request.prompt_sets):
        texts = {each.prompt_id: each.text for each in prompts if job.shard.takes(each.prompt_id)}
        with run.stage("plan"):
            missing = missing_items(requested, texts, stored.at_start)
        is_whole = bool(missing) and request.shares_prefix
        with run.stage("tokenise"):
            rendered = job.render_usable(
                texts if is_whole else {prompt_id: texts[prompt_id] for prompt_id in missing},
                request,
                poolings=list(poolings.values()),
                room=VLLM_ROOM if job.spec.engine == VLLM else 0,
                skipped=run.skipped,
            )
        groups = list(_groups(rendered, missing, request))
        new = [row for group in groups for row in group.rendered.values()]
        tokens = sum(len(row.token_ids) for row in new)
        yield Part(groups, tokens, not missing, len(texts), len(new))


class _Prepared(NamedTuple):
    """Where a group's items are recorded, and the prefixes that were run, if they are shared."""

    points: dict[tuple[int, str], Point]
    path: PrefixPath | None


class Session:
    """A loaded model at work, importing torch; its token budget shrinks to what fits the memory."""

    def __init__(
        self,
        run: Run,
        loaded: LoadedModel,
        request: ActivationRequest,
        poolings: Mapping[str, Pooling],
        readouts: Readouts,
        engines: VllmEngines | None = None,
    ) -> None:
        from axes.ingest.forward.batching import Batches

        self.run, self.loaded, self._request, self._poolings = run, loaded, request, poolings
        self._readouts, self._engines = readouts, engines
        self._batches = Batches(loaded, run, request.token_budget)
        self._prepared: tuple[object, _Prepared] | None = None

    def run_group(
        self, group: Group, sink: StoredRows | Outbox, done: Callable[[int], None]
    ) -> None:
        """Run a group, and write what it gives; `done(tokens)` after each batch."""
        template, batches = self._request.rendering, self._compute(group)
        readouts, items = self._readouts, group.items
        with ChunkWriter(self.run, self.loaded, template, items, readouts, sink) as writer:
            # Each is stored when the next is already computed.
            for batch, _next in itertools.pairwise(itertools.chain(batches, [None])):
                assert batch is not None
                with self.run.stage("copy"):
                    _require_finite(self.loaded, batch)
                writer.add(batch)
                done(sum(len(group.rendered[name].token_ids) for name in batch.prompt_ids))

    def _compute(self, group: Group) -> Iterator[Batch]:
        """The batches of one family after the other."""
        for family in group.planned(self.shares(group)):
            lengths, start = _lengths(group, family), self._starter(group, family)
            for names, batch in self._batches.compute(lengths, start, partial(_describe, group)):
                self.run.tokens += sum(lengths[name] for name in names)
                yield batch

    def shares(self, group: Group) -> bool:
        """Whether prompts of a group are run after the prefixes that they share."""
        return self._engines is None and self._prepare(group).path is not None

    def _prepare(self, group: Group) -> _Prepared:
        """What the model has for a group; that of the last one is kept."""
        from axes.ingest.forward.prefix_cache import PrefixPath, share_prefix
        from axes.ingest.forward.recording import find_points

        key, items = (group.items, group.trial), group.items
        if self._prepared is not None and self._prepared[0] == key:
            return self._prepared[1]
        layers = sorted({item.layer for item in items})
        points = find_points(self.loaded, layers, sorted({item.site for item in items}))
        path = None
        if group.trial:
            recorded = list(dict.fromkeys(points[item.layer, item.site] for item in items))
            prefix, remark = share_prefix(self.loaded, group.trial, recorded)
            if prefix is not None:
                self.run.tokens += prefix.length
                path = PrefixPath(self.loaded, recorded, prefix)
            if remark is not None:
                self.run.messages.append(remark)
        self._prepared = key, _Prepared(points, path)
        return self._prepared[1]

    def _forward(self, group: Group, family: Family) -> Forward | VllmEngine:
        """What runs prompts of a family, whose prefixes have then been run."""
        from axes.ingest.forward.forward import Forward

        if self._engines is not None:
            longest = max(len(prompt.token_ids) for prompt in group.rendered.values())
            with self.run.stage("load"):
                return self._engines.engine(longest, self._batches.budget)
        points, path = self._prepare(group)
        if path is not None:
            self.run.tokens += path.move_to(family)
        prefix = None if path is None else path.last
        items = recorded_items(group.items)
        return Forward(self.run, self.loaded, points, items, self._poolings, prefix)

    @staticmethod
    def whole_batches(group: Group, request: ActivationRequest, ask: Ask) -> list[WholeBatch]:
        """The batches that a session makes of a group, with their tokens.

        A session is asked whether its model shares the prefixes, if there are any.
        """
        from axes.ingest.forward.batching import plan_batches

        shares = bool(group.trial) and ask("shares", group.part([]))
        return [
            WholeBatch(names, sum(len(group.rendered[name].token_ids) for name in names))
            for family in group.planned(shares)
            for names in plan_batches(_lengths(group, family), request.token_budget)
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

    def measure(self, group: Group) -> float:
        """Tokens per second of the largest family's middle batch, the second time through it."""
        from axes.ingest.forward.batching import plan_batches

        family = max(group.planned(self.shares(group)), key=lambda each: len(each.names))
        lengths, start = _lengths(group, family), self._starter(group, family)
        started = None
        while started is None:
            planned = plan_batches(lengths, self._batches.budget)
            middle = planned[len(planned) // 2]
            started = self._batches.attempt(middle, start, partial(_describe, group))
        _ = started.vectors
        since = time.perf_counter()
        _ = start(middle).vectors
        return sum(lengths[name] for name in middle) / (time.perf_counter() - since)

    def _starter(self, group: Group, family: Family) -> Callable[[list[str]], Batch]:
        forward = self._forward(group, family)
        return self.run.stage("forward")(
            lambda names: forward.start(names, [group.rendered[name] for name in names])
        )


def _lengths(group: Group, family: Family) -> dict[str, int]:
    shared = len(family.tokens)
    return {name: len(group.rendered[name].token_ids) - shared for name in family.names}


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
