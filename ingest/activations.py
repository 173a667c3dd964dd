"""The job: prompts through a model, one pooled vector per prompt, layer, site and pooling.

Resumable by row: what is there under the same key (model version, prompt, layer, site, pooling,
template) is not computed again, and weights are not even loaded when nothing is missing.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from axes.ingest.activation_writer import ChunkWriter, StoredRows
from axes.ingest.forward.activation_keys import Item, Items, Selection, missing_items, stored_items
from axes.ingest.forward.batching import DEFAULT_TOKEN_BUDGET, plan_batches
from axes.ingest.forward.forward import Batch, Forward, StartedBatch
from axes.ingest.forward.prefix_cache import share_prefix
from axes.ingest.forward.recording import find_points
from axes.ingest.forward.templates import Rendered
from axes.ingest.jobs import IngestSummary, Job, Shard, non_finite, open_job, stops_between_batches
from axes.ingest.models.load import LoadedModel, require_layers
from axes.ingest.models.registry import ModelSpec
from axes.ingest.prompts import Prompt, read_prompts
from axes.warehouse.errors import ModelError
from axes.warehouse.progress import track
from axes.warehouse.runs import Run, record_run

# Ids, token strings and the rest of a row beside its vector, compressed; measured on the demo.
_ROW_BYTES = 40


@dataclass(frozen=True)
class IngestPlan:
    """What a job would do: `rows` to write, `tokens` to run, `bytes` on the disk.

    `seconds` is the time of the forward passes at `tokens_per_second`, which is measured on one
    batch; both are None where nothing is to be done.
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
    root: Path,
    spec: ModelSpec,
    prompt_sets: Mapping[str, int | None],
    selection: Selection | None = None,
    *,
    device: str | None = None,
    dtype: str | None = None,
    token_budget: int = DEFAULT_TOKEN_BUDGET,
    shares_prefix: bool = True,
    shard: Shard | None = None,
    skip_unusable: bool = False,
) -> IngestSummary:
    """Write the activations of `selection` (default: last5_mean of every block) for some prompts.

    `prompt_sets` says how many of each set's first prompts, None for all; `shard` takes its part of
    them. `shares_prefix` runs tokens that all prompts begin with once, where the model allows it.
    `skip_unusable` leaves out, and records in the run row, prompts that give no tokens, exceed the
    context or have nothing to pool. Raises `PromptError`, `ModelError`, `LayerError` or
    `NonFiniteError`; rows committed before an error stay, and so do those before Ctrl-C, which
    is raised as KeyboardInterrupt when the batch is done.
    """
    selection = selection or Selection()
    prompts = _read_prompts(root, prompt_sets, shard)
    job = open_job(root, spec, device, dtype, shard)
    parameters = {
        **job.described(),
        "prompt_sets": dict(prompt_sets),
        **selection.described(),
        "shard": None if shard is None else str(shard),
        "token_budget": token_budget,
        "shares_prefix": shares_prefix,
    }
    with (
        job.lock(),
        record_run(root, "ingest activations", parameters, device=job.device) as run,
        stops_between_batches() as check_interrupt,
    ):
        work = _find_work(job, selection, prompts, run.skipped, skip_unusable)
        is_lost = not work.missing and not job.is_registered()
        if work.rendered or is_lost:
            loaded = job.load()
            job.register(loaded, run)
            session = _Session(
                job, run, selection, loaded, work.stored, token_budget, shares_prefix
            )
            with track(f"ingest {spec.name}", work.token_count, "tok") as advance:

                def done(tokens: int) -> None:
                    advance(tokens)
                    check_interrupt()

                for items, prompt_ids in work.groups():
                    session.run_group(items, prompt_ids, work.rendered, done)
    return job.summary(run, len(prompts), len(work.rendered))


def plan_activations(
    root: Path,
    spec: ModelSpec,
    prompt_sets: Mapping[str, int | None],
    selection: Selection | None = None,
    *,
    device: str | None = None,
    dtype: str | None = None,
    token_budget: int = DEFAULT_TOKEN_BUDGET,
    shares_prefix: bool = True,
    shard: Shard | None = None,
    skip_unusable: bool = False,
) -> IngestPlan:
    """What `ingest_activations` would do, timed on one batch; nothing is written.

    Raises what it would raise before its first batch.
    """
    selection = selection or Selection()
    prompts = _read_prompts(root, prompt_sets, shard)
    job = open_job(root, spec, device, dtype, shard)
    work = _find_work(job, selection, prompts, [], skip_unusable)
    rows = stored_bytes = 0
    rate = None
    run = Run(root, "plan", {})
    if work.rendered:
        session = _Session(
            job, run, selection, job.load(), work.stored, token_budget, shares_prefix
        )
        for items, prompt_ids in work.groups():
            rendered = [work.rendered[name] for name in prompt_ids]
            forward, shared = session.prepare(items, rendered)
            run.tokens += sum(len(row.token_ids) - shared for row in rendered)
            new_rows = sum(
                1 if item.pooling else len(row.token_ids) for item in items for row in rendered
            )
            rows += new_rows
            stored_bytes += new_rows * (4 * session.loaded.d_model + _ROW_BYTES)
        rate = session.measure(forward, shared, prompt_ids, work.rendered)
    return IngestPlan(
        model=spec.name,
        model_id=job.identity.model_id,
        prompt_count=len(prompts),
        new_count=len(work.rendered),
        rows=rows,
        tokens=run.tokens,
        bytes=stored_bytes,
        tokens_per_second=rate,
        seconds=None if rate is None else run.tokens / rate,
    )


@dataclass(frozen=True)
class _Work:
    """The prompts that can be run and lack something, and what each lacks."""

    rendered: dict[str, Rendered]
    missing: dict[str, Items]
    stored: StoredRows

    @property
    def token_count(self) -> int:
        return sum(len(prompt.token_ids) for prompt in self.rendered.values())

    def groups(self) -> list[tuple[list[Item], list[str]]]:
        """Prompts that lack the same items are run together; usually that is one group."""
        groups: dict[Items, list[str]] = defaultdict(list)
        for prompt_id in self.rendered:
            groups[self.missing[prompt_id]].append(prompt_id)
        return [(sorted(items), prompt_ids) for items, prompt_ids in groups.items()]


def _read_prompts(
    root: Path, prompt_sets: Mapping[str, int | None], shard: Shard | None
) -> list[Prompt]:
    prompts = read_prompts(root, prompt_sets)
    return [prompt for prompt in prompts if shard is None or shard.takes(prompt.prompt_id)]


def _find_work(
    job: Job,
    selection: Selection,
    prompts: Sequence[Prompt],
    skipped: list[dict[str, str]],
    skip_unusable: bool,
) -> _Work:
    layer_count = job.layer_count()
    require_layers(job.spec.name, layer_count, [*(selection.layers or ()), *selection.token_layers])
    key = (job.root, job.spec.name, job.identity.model_id, selection.template.name)
    stored = StoredRows(job.root, job.spec.name, lambda: stored_items(*key))
    ids = [prompt.prompt_id for prompt in prompts]
    missing = missing_items(selection.items(layer_count), ids, stored.at_start)
    texts = {prompt.prompt_id: prompt.text for prompt in prompts if prompt.prompt_id in missing}
    rendered = job.render_usable(
        texts,
        selection.template,
        poolings=selection.poolings,
        skipped=skipped,
        skip_unusable=skip_unusable,
    )
    return _Work(rendered, missing, stored)


@dataclass
class _Session:
    """A loaded model at work; `token_budget` shrinks where a batch does not fit the memory."""

    job: Job
    run: Run
    selection: Selection
    loaded: LoadedModel
    stored: StoredRows
    token_budget: int
    shares_prefix: bool

    def run_group(
        self,
        items: list[Item],
        prompt_ids: list[str],
        rendered: dict[str, Rendered],
        done: Callable[[int], None],
    ) -> None:
        """Run prompts that lack the same items, and store them; `done(tokens)` after each batch."""
        forward, shared = self.prepare(items, [rendered[name] for name in prompt_ids])
        with ChunkWriter(
            root=self.job.root,
            run=self.run,
            loaded=self.loaded,
            template=self.selection.template,
            items=items,
            stored=self.stored,
        ) as writer:
            for batch in self._batches(forward, shared, prompt_ids, rendered):
                _require_finite(self.loaded, batch)
                writer.add(batch)
                self.run.tokens += sum(len(row.token_ids) - shared for row in batch.rendered)
                done(sum(len(row.token_ids) for row in batch.rendered))

    def prepare(self, items: list[Item], rendered: list[Rendered]) -> tuple[Forward, int]:
        """What runs these items, and how many tokens at the start of each prompt it shares."""
        layers = sorted({item.layer for item in items})
        points = find_points(self.loaded, layers, sorted({item.site for item in items}))
        prefix = None
        if self.shares_prefix:
            wanted = [points[item.layer, item.site] for item in items]
            token_ids = [prompt.token_ids for prompt in rendered]
            prefix, remark = share_prefix(self.loaded, token_ids, list(dict.fromkeys(wanted)))
            if remark is not None:
                self.run.messages.append(remark)
        poolings = {pooling.name: pooling for pooling in self.selection.poolings}
        forward = Forward(self.loaded, points, items, poolings, prefix)
        if prefix is None:
            return forward, 0
        self.run.tokens += prefix.length
        return forward, prefix.length

    def measure(
        self, forward: Forward, shared: int, prompt_ids: list[str], rendered: dict[str, Rendered]
    ) -> float:
        """Tokens per second of the middle batch; the first time through it is not counted."""
        lengths = [len(rendered[name].token_ids) - shared for name in prompt_ids]
        started = None
        while started is None:
            batches = plan_batches(lengths, self.token_budget)
            middle = batches[len(batches) // 2]
            names = [prompt_ids[index] for index in middle]
            started = self._start(forward, names, [rendered[name] for name in names])
        started.finish()
        since = time.perf_counter()
        forward.start(names, [rendered[name] for name in names]).finish()
        return sum(lengths[index] for index in middle) / (time.perf_counter() - since)

    def _batches(
        self, forward: Forward, shared: int, prompt_ids: list[str], rendered: dict[str, Rendered]
    ) -> Iterator[Batch]:
        """Batches in the order they are done, each while the next is already computed."""
        left, pending = prompt_ids, None
        while left:
            lengths = [len(rendered[name].token_ids) - shared for name in left]
            planned = plan_batches(lengths, self.token_budget)
            named = [[left[index] for index in indices] for indices in planned]
            while named:
                started = self._start(forward, named[0], [rendered[name] for name in named[0]])
                if started is None:
                    break
                del named[0]
                if pending is not None:
                    yield pending.finish()
                pending = started
            left = [name for names in named for name in names]
        if pending is not None:
            yield pending.finish()

    def _start(
        self, forward: Forward, names: list[str], rendered: list[Rendered]
    ) -> StartedBatch | None:
        """Start a batch; None where it does not fit the memory, and then the budget is halved."""
        import torch

        try:
            return forward.start(names, rendered)
        except torch.OutOfMemoryError as error:
            if len(names) == 1:
                raise ModelError(
                    f"a prompt of {len(rendered[0].token_ids)} tokens does not fit the memory of "
                    f"{self.loaded.device} beside {self.loaded.spec.name}: "
                    "try --dtype bfloat16 or --device auto"
                ) from error
            # Two or more were within the budget: half of it holds fewer, and still one.
            self.token_budget //= 2
            self.run.messages.append(f"out of memory: token budget halved to {self.token_budget}")
            return None


def _require_finite(loaded: LoadedModel, batch: Batch) -> None:
    owners = [
        name
        for name, row in zip(batch.prompt_ids, batch.rendered, strict=True)
        for _ in row.token_ids
    ]
    for names, results in ((batch.prompt_ids, batch.pooled), (owners, batch.tokens)):
        for item, vectors in results.items():
            bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
            if len(bad):
                raise non_finite(loaded, f"at layer {item.layer} for prompt {names[bad[0]]}")
