"""The job: let a model complete prompts and store every token, with the blocks' output at it.

A token's vector is the block output at the token's own position, as in a pass over the finished
text; the last token has one too, from one more step at the end.

Tokens and projections are written first, then the row of `generations` that makes them count: no
reader sees a completion without it, so that a job may be killed between the files.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from axes.ingest.cluster.placement import Spread, placed
from axes.ingest.cluster.pool import Ask, WholeBatch
from axes.ingest.forward.batching import Batches, plan_batches
from axes.ingest.forward.templates import Rendered
from axes.ingest.generation.generate import generate
from axes.ingest.generation.teacher_forcing import Text, logits_budget, score
from axes.ingest.generation.token_statistics import Kept, Trace
from axes.ingest.jobs import IngestSummary, Job, Part, open_job
from axes.ingest.models.load import LoadedModel, require_layers
from axes.ingest.models.registry import ModelSpec
from axes.ingest.prompts import count_prompts, prompt_slices
from axes.ingest.requests import LOCAL, Placement, TokenRequest, TraceRequest
from axes.ingest.sinks import Direct, Outbox
from axes.warehouse.axes import AXIS_TABLES, read_axis_readouts
from axes.warehouse.errors import ModelError
from axes.warehouse.handle import Warehouse
from axes.warehouse.names import RESID_POST, counted
from axes.warehouse.runs import Run
from axes.warehouse.storage.store import committing
from axes.warehouse.tables.columns import TOP_TOKENS
from axes.warehouse.writer import (
    WRITTEN_BEFORE_GENERATIONS,
    SentFile,
    commit_rows,
    content_key,
    remove_uncommitted,
    rows_table,
    vector_array,
)

# Tokens of a batch of prompts whose own tokens are stored.
_PROMPT_BUDGET = 1024


def ingest_traces(
    root: Path, spec: ModelSpec, request: TraceRequest, placement: Placement = LOCAL
) -> IngestSummary:
    """Generate the requested completions that are missing, and store their tokens.

    No completion depends on its batch. Raises as `ingest_activations` does, and `AxisError` for an
    axis that does not fit the model.
    """
    if request.is_greedy and request.samples > 1:
        raise ModelError(f"{request.samples} greedy completions would be one: add --temperature")
    with placed(placement, root, request) as (root, request, pool):
        total = count_prompts(root, {request.prompt_set: request.limit}) * request.samples
        job = open_job(root, spec, request)
        kept = what_to_keep(job, request)
        parameters = {**token_parameters(request, kept), **placement.parameters()}
        with job.running("ingest traces", parameters, seed=request.seed) as running:
            options = {"request": request, "kept": kept}
            spread = Spread(running, pool, Session, options, Direct(root, spec.name))
            parts = _plan(job, request, kept, running.run)
            counts = spread.compute("traces", "completions", parts, total)
    return job.summary(running.run, *counts)


class Sample(NamedTuple):
    """One of a prompt's completions."""

    prompt_id: str
    number: int

    @property
    def name(self) -> str:
        """Its name in a batch, from which it is seeded."""
        return self.prompt_id if self.number == 0 else f"{self.prompt_id}, sample {self.number}"


def what_to_keep(job: Job, request: TokenRequest) -> Kept:
    """What is kept of each token: with axes projections, else vectors."""
    layer_count = job.layer_count()
    layers = None if request.layers is None else sorted(set(request.layers))
    if request.axes:
        readouts = read_axis_readouts(
            Warehouse.open_tables(job.root, *AXIS_TABLES),
            request.axes,
            job.spec.name,
            job.identity.model_id,
            layers=layers,
        )
        require_layers(job.spec.name, layer_count, [readout.layer for readout in readouts])
        return Kept((), tuple(readouts), request.top_tokens)
    if layers is None:
        layers = [round(request.layer_fraction * (layer_count - 1))]
    require_layers(job.spec.name, layer_count, layers)
    return Kept(tuple(layers), (), request.top_tokens)


def token_parameters(request: TokenRequest, kept: Kept) -> dict[str, object]:
    """The request as parameters of a run row, with the layers that it comes to."""
    return {**request.parameters(), "layers": list(kept.layers) or request.layers}


@dataclass(frozen=True)
class Completions:
    """Completions to generate (generation_id -> sample), and their prompts, rendered, by id."""

    samples: Mapping[str, Sample]
    rendered: Mapping[str, Rendered]

    def part(self, keys: Iterable[str]) -> Completions:
        """These completions alone."""
        samples = {key: self.samples[key] for key in keys}
        names = dict.fromkeys(sample.prompt_id for sample in samples.values())
        return Completions(samples, {name: self.rendered[name] for name in names})

    def length(self, key: str) -> int:
        """Tokens of a completion's prompt."""
        return len(self.rendered[self.samples[key].prompt_id].token_ids)

    def sizes(self) -> dict[str, int]:
        """Longest prompts first: a batch is so many completions, whatever their lengths."""
        return dict.fromkeys(sorted(self.samples, key=lambda key: -self.length(key)), 1)


def _plan(job: Job, request: TraceRequest, kept: Kept, run: Run) -> Iterator[Part]:
    """What is missing of the requested completions, slice by slice."""
    model_id, stored = job.identity.model_id, stored_generations(job.root, job.spec.name)
    for prompts in prompt_slices(job.root, {request.prompt_set: request.limit}):
        samples = {
            request.key(model_id, kept, prompt.prompt_id, request.sampling_key(number)): Sample(
                prompt.prompt_id, number
            )
            for prompt in prompts
            for number in range(request.samples)
        }
        missing = {key: sample for key, sample in samples.items() if key not in stored}
        prompt_ids = {sample.prompt_id for sample in missing.values()}
        rendered = job.render_usable(
            {prompt.prompt_id: prompt.text for prompt in prompts if prompt.prompt_id in prompt_ids},
            request,
            skipped=run.skipped,
            room=request.max_new_tokens,
        )
        usable = {key: sample for key, sample in missing.items() if sample.prompt_id in rendered}
        groups, count = [Completions(usable, rendered)], len(usable)
        yield Part(groups, count, not missing, len(samples), count)


class Session:
    """A loaded model that generates, in batches that shrink where one does not fit the memory."""

    def __init__(self, run: Run, loaded: LoadedModel, request: TraceRequest, kept: Kept) -> None:
        self._run, self._loaded, self._request, self._kept = run, loaded, request, kept
        self._batches = Batches(loaded, run, request.batch_size, "batch size")

    def run_group(
        self, work: Completions, sink: Direct | Outbox, done: Callable[[int], None]
    ) -> None:
        """Generate completions, and write them; `done(completions)` after each batch."""
        request = self._request
        columns = {
            key: {
                "template": request.rendering.name,
                "prompt_token_count": work.length(key),
                "sample": sample.number,
                **request.columns(),
            }
            for key, sample in work.samples.items()
        }
        traces = self._batches.compute(
            work.sizes(),
            partial(self._complete, work),
            lambda key: f"a completion of {work.length(key)} and {request.max_new_tokens} tokens",
        )
        write_traces(self._run, self._loaded, self._kept, traces, columns, sink, done)

    @staticmethod
    def whole_batches(work: Completions, request: TraceRequest, _: Ask) -> list[WholeBatch]:
        """The batches that a session makes, with their numbers of completions."""
        batches = plan_batches(work.sizes(), request.batch_size)
        return [WholeBatch(keys, len(keys)) for keys in batches]

    @staticmethod
    def commit(run: Run, sink: Direct, files: list[SentFile], _: object) -> None:
        """Commit files, those whose rows make others count last."""
        order = [*WRITTEN_BEFORE_GENERATIONS, "generations"]
        with sink.turn():
            commit_rows(run.root, sorted(files, key=lambda file: order.index(file.table)))
        run.rows += sum(file.record.rows for file in files if file.table != "generations")

    def _complete(self, work: Completions, keys: list[str]) -> list[Trace]:
        loaded, kept = self._loaded, self._kept
        batch = [work.samples[key] for key in keys]
        encoded = {sample.name: work.rendered[sample.prompt_id].token_ids for sample in batch}
        prompts: dict[str, Trace] = {}
        if self._request.prompt_tokens:
            # The tokens of each prompt, once, in a pass that gives every distribution.
            texts = {name: Text(name, work.rendered[name].token_ids) for name, _ in batch}
            lengths = {name: len(text.prompt) for name, text in texts.items()}
            passes = Batches(loaded, self._run, logits_budget(loaded.vocab_size, _PROMPT_BUDGET))
            for names, scored in passes.compute(
                lengths,
                lambda names: score(
                    loaded, [texts[name] for name in names], kept, reads_prompt=True
                ),
                lambda name: f"a prompt of {counted(lengths[name], 'token')}",
            ):
                prompts.update(zip(names, scored, strict=True))
        traces = generate(loaded, encoded, kept, self._request)
        for trace, sample in zip(traces, batch, strict=True):
            trace.prompt_id = sample.prompt_id
        if not prompts:
            return traces
        return [_with_prompt(prompts[trace.prompt_id], trace) for trace in traces]


def _with_prompt(prompt: Trace, trace: Trace) -> Trace:
    """A completion's trace with its prompt's tokens in front."""
    return replace(
        trace,
        token_ids=prompt.token_ids + trace.token_ids,
        statistics=_joined(prompt.statistics, trace.statistics),
        vectors=_joined(prompt.vectors, trace.vectors),
        projections=_joined(prompt.projections, trace.projections),
        first_step=prompt.first_step,
    )


def _joined(before: dict[Any, np.ndarray], after: dict[Any, np.ndarray]) -> dict[Any, np.ndarray]:
    return {key: np.concatenate([before[key], after[key]]) for key in before}


def stored_generations(root: Path, model: str) -> set[str]:
    """The ids of a model's completions; what a killed job left of others is removed."""
    # Under the lock, since a job on another version of the model may be between its files.
    with committing(root, model):
        for table in WRITTEN_BEFORE_GENERATIONS:
            remove_uncommitted(root, table, "generations", model)
    return generation_ids(root, model)


def generation_ids(root: Path, model: str) -> set[str]:
    """The ids of a model's completions."""
    warehouse = Warehouse.open_tables(root, "generations")
    return set(warehouse.column("select generation_id from generations where model = ?", [model]))


def write_traces(
    run: Run,
    loaded: LoadedModel,
    kept: Kept,
    batches: Iterable[tuple[list[str], list[Trace]]],
    columns: Mapping[str, Mapping[str, Any]],
    sink: Direct | Outbox,
    done: Callable[[int], None],
) -> None:
    """Write each batch (its generation_ids and their traces), and say that it is done.

    `columns` are those of `generations` that a trace does not hold, by generation_id.
    """
    decode = cache(lambda token_id: str(loaded.tokenizer.decode([token_id])))
    for keys, traces in batches:
        name, named = content_key(sorted(keys)), list(zip(keys, traces, strict=True))
        tokens = [
            _token_rows(key, trace, layer, kept, decode, run)
            for key, trace in named
            for layer in kept.recorded_layers
        ]
        projections = [
            _projection_rows(key, trace, readout_key, run)
            for key, trace in named
            for readout_key in trace.projections
        ]
        generations = [
            {**generation_row(key, trace, loaded, run), **columns[key]} for key, trace in named
        ]
        # Files of one name in each table.
        with sink.turn():
            for table, groups in (
                ("generation_tokens", tokens),
                ("token_projections", projections),
                ("generations", [rows_table("generations", generations)]),
            ):
                if groups:
                    sink.write(table, [pa.concat_tables(groups)], name)
        run.tokens += sum(len(trace.token_ids) for trace in traces)
        run.rows += sum(len(table) for table in itertools.chain(tokens, projections))
        done(len(keys))


def generation_row(
    generation_id: str, trace: Trace, loaded: LoadedModel, run: Run
) -> dict[str, object]:
    """The columns of `generations` that a trace holds."""
    completion = trace.token_ids[-trace.first_step :]
    return {
        "generation_id": generation_id,
        "model_id": loaded.identity.model_id,
        "prompt_id": trace.prompt_id,
        "text": loaded.tokenizer.decode(completion, skip_special_tokens=True),
        "token_count": len(completion),
        "finish_reason": trace.finish_reason,
        "run_id": run.run_id,
    }


def _token_rows(
    generation_id: str, trace: Trace, layer: int, kept: Kept, decode: Callable[[int], str], run: Run
) -> pa.Table:
    return rows_table(
        "generation_tokens",
        [],
        generation_id=generation_id,
        layer=layer,
        site=RESID_POST,
        run_id=run.run_id,
        step=_steps(trace),
        token_id=trace.token_ids,
        token=[decode(token_id) for token_id in trace.token_ids],
        logprob=_known(trace.statistics["logprob"]),
        entropy=_known(trace.statistics["entropy"]),
        top_tokens=_top_tokens(trace),
        vector=vector_array(trace.vectors[layer]) if layer in kept.layers else None,
    )


def _projection_rows(
    generation_id: str, trace: Trace, readout_key: tuple[str, int, str | None], run: Run
) -> pa.Table:
    axis_id, layer, alignment_id = readout_key
    return rows_table(
        "token_projections",
        [],
        axis_id=axis_id,
        generation_id=generation_id,
        layer=layer,
        alignment_id=alignment_id,
        run_id=run.run_id,
        step=_steps(trace),
        projection=trace.projections[readout_key],
    )


def _steps(trace: Trace) -> range:
    return range(trace.first_step, trace.first_step + len(trace.token_ids))


def _known(values: np.ndarray) -> pa.Array:
    """Null where there is no distribution: at the first token of a prompt."""
    return pa.array(values.astype(np.float32), from_pandas=True)


def _top_tokens(trace: Trace) -> pa.Array | None:
    if "top_ids" not in trace.statistics:
        return None
    ids, logprobs = trace.statistics["top_ids"], trace.statistics["top_logprobs"]
    count, width = ids.shape
    tokens = pa.StructArray.from_arrays(
        [
            pa.array(ids.reshape(-1).astype(np.int32)),
            pa.array(logprobs.reshape(-1).astype(np.float32)),
        ],
        fields=list(TOP_TOKENS.value_type),
    )
    offsets = pa.array(np.arange(count + 1) * width, pa.int32())
    unknown = pa.array(ids[:, 0] < 0)
    return pa.ListArray.from_arrays(offsets, tokens, type=TOP_TOKENS, mask=unknown)
