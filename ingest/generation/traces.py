"""The job: let a model answer prompts and store every token, with the blocks' output at it.

A token's vector is the block output at the token's own position, as in a pass over the finished
text; the last token has one too, from one more step at the end.

Traces as rows: tokens and projections first, then the completions that make them count.

A completion without its row in `generations` is not there for any reader, so that a job may be
killed between the files.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from axes.ingest.forward.batching import DEFAULT_TOKEN_BUDGET
from axes.ingest.forward.templates import Rendered, Template
from axes.ingest.generation.generate import Sampling, generate
from axes.ingest.generation.teacher_forcing import Given, batches, score
from axes.ingest.generation.token_statistics import Kept, Trace
from axes.ingest.jobs import IngestSummary, Job, open_job, stops_between_batches
from axes.ingest.models.load import LoadedModel, require_layers
from axes.ingest.models.registry import ModelSpec
from axes.ingest.prompts import read_prompts
from axes.warehouse.axes import AXIS_TABLES, read_axis_readouts
from axes.warehouse.connection import connect_tables, rows
from axes.warehouse.errors import ModelError
from axes.warehouse.handle import Warehouse
from axes.warehouse.ledger import committing
from axes.warehouse.names import RESID_POST
from axes.warehouse.progress import track
from axes.warehouse.runs import Run, record_run
from axes.warehouse.tables.columns import TOP_TOKENS, VECTOR
from axes.warehouse.tables.schemas import TABLES
from axes.warehouse.writer import (
    WRITTEN_BEFORE_GENERATIONS,
    content_key,
    remove_uncommitted,
    rows_table,
    vector_array,
    write_rows,
)


def ingest_traces(
    root: Path,
    spec: ModelSpec,
    prompt_set: str,
    *,
    layers: Sequence[int] | None = None,
    layer_fraction: float = 0.8,
    axes: Sequence[str] = (),
    prompt_tokens: bool = False,
    top_tokens: int = 0,
    template: str = "raw",
    system: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    limit: int | None = None,
    batch_size: int = 16,
    max_new_tokens: int = 32,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    samples: int = 1,
    stop_strings: Sequence[str] = (),
    end_tokens: Sequence[str] = (),
    skip_unusable: bool = False,
) -> IngestSummary:
    """Generate completions for each prompt of a set and store their tokens.

    Vectors are kept at `layers`, without them at the one block `round(layer_fraction *
    (layer_count - 1))`. With `axes` (ids or names) no vectors are kept but the projections on these
    axes, at their own layers or at `layers`. `samples` completions a prompt are drawn, each with
    a seed of its own; `system` is the system prompt of the chat template.

    Completions that are there are not generated again, and none depends on its batch. Raises as
    `ingest_activations` does, and `AxisError` for an axis that does not fit the model.
    """
    sampling = Sampling(
        max_new_tokens, temperature, top_p, seed, tuple(stop_strings), tuple(end_tokens)
    )
    if sampling.is_greedy and samples > 1:
        raise ModelError(f"{samples} greedy completions would be one: add --temperature")
    policy = Template(template, system)
    prompts = read_prompts(root, {prompt_set: limit})
    job = open_job(root, spec, device, dtype)
    kept = what_to_keep(job, layers, layer_fraction, axes, top_tokens)
    parameters = {
        **job.described(),
        "prompt_set": prompt_set,
        **kept_parameters(kept, layers, axes, prompt_tokens),
        "template": policy.name,
        "system": system,
        "limit": limit,
        "batch_size": batch_size,
        "samples": samples,
        **vars(sampling),
    }
    with (
        job.lock(),
        record_run(root, "ingest traces", parameters, device=job.device, seed=seed) as run,
        stops_between_batches() as check_interrupt,
    ):
        there = generations_there(root, spec.name)
        wanted = {
            completion.key(job, policy, sampling, kept, prompt_tokens): completion
            for prompt in prompts
            for completion in (_Completion(prompt.prompt_id, number) for number in range(samples))
        }
        wanted = {key: completion for key, completion in wanted.items() if key not in there}
        lacking = {completion.prompt_id for completion in wanted.values()}
        usable = job.render_usable(
            {prompt.prompt_id: prompt.text for prompt in prompts if prompt.prompt_id in lacking},
            policy,
            skipped=run.skipped,
            skip_unusable=skip_unusable,
            room=max_new_tokens,
        )
        wanted = {key: item for key, item in wanted.items() if item.prompt_id in usable}
        if wanted or not (lacking or job.is_registered()):
            loaded = job.load()
            job.register(loaded, run)
            session = _Session(loaded, run, kept, sampling, prompt_tokens, usable)
            with track(f"traces {spec.name}", len(wanted), "completions") as advance:
                for traces in session.run_all(wanted, batch_size):
                    described = {
                        key: {
                            "template": policy.name,
                            "prompt_token_count": len(usable[trace.prompt_id].token_ids),
                            "sample": wanted[key].sample,
                            **sampling.columns(),
                        }
                        for key, trace in traces.items()
                    }
                    write_traces(root, run, loaded, kept, traces, described)
                    advance(len(traces))
                    check_interrupt()
    return job.summary(run, len(prompts) * samples, len(wanted))


def what_to_keep(
    job: Job,
    layers: Sequence[int] | None,
    layer_fraction: float,
    axes: Sequence[str],
    top_tokens: int,
) -> Kept:
    """What is kept of each token: with axes projections, else vectors."""
    layer_count = job.layer_count()
    if axes:
        readouts = read_axis_readouts(
            Warehouse.open_tables(job.root, *AXIS_TABLES),
            axes,
            job.spec.name,
            job.identity.model_id,
            layers=layers,
        )
        require_layers(job.spec.name, layer_count, [readout.layer for readout in readouts])
        return Kept((), tuple(readouts), top_tokens)
    if layers is None:
        layers = [round(layer_fraction * (layer_count - 1))]
    require_layers(job.spec.name, layer_count, layers)
    return Kept(tuple(sorted(set(layers))), (), top_tokens)


def kept_parameters(
    kept: Kept, layers: Sequence[int] | None, axes: Sequence[str], prompt_tokens: bool
) -> dict[str, Any]:
    """The same as parameters of the run row."""
    return {
        "layers": list(kept.layers) or layers,
        "axes": list(axes),
        "prompt_tokens": prompt_tokens,
        "top_tokens": kept.top_count,
    }


def kept_key(kept: Kept, prompt_tokens: bool) -> dict[str, Any]:
    """What of it makes the same text another completion; what is not asked for is left out."""
    asked = {
        "axes": [list(readout.key) for readout in kept.readouts],
        "prompt_tokens": prompt_tokens,
        "top_tokens": kept.top_count,
    }
    return {name: value for name, value in asked.items() if value}


def with_prompt(prompt: Trace, trace: Trace) -> Trace:
    """A completion's trace with its prompt's tokens in front."""
    return Trace(
        prompt_id=trace.prompt_id,
        token_ids=prompt.token_ids + trace.token_ids,
        logprobs=prompt.logprobs + trace.logprobs,
        entropies=prompt.entropies + trace.entropies,
        vectors=_joined(prompt.vectors, trace.vectors),
        projections=_joined(prompt.projections, trace.projections),
        top_ids=_both(prompt.top_ids, trace.top_ids),
        top_logprobs=_both(prompt.top_logprobs, trace.top_logprobs),
        finish_reason=trace.finish_reason,
        first_step=prompt.first_step,
    )


def _joined(before: dict[Any, np.ndarray], after: dict[Any, np.ndarray]) -> dict[Any, np.ndarray]:
    return {key: np.concatenate([before[key], after[key]]) for key in before}


def _both(before: np.ndarray | None, after: np.ndarray | None) -> np.ndarray | None:
    return None if before is None or after is None else np.concatenate([before, after])


@dataclass(frozen=True)
class _Completion:
    """One of a prompt's completions."""

    prompt_id: str
    sample: int

    @property
    def name(self) -> str:
        """What tells it from others in a batch, and seeds it."""
        return self.prompt_id if self.sample == 0 else f"{self.prompt_id}, sample {self.sample}"

    def key(
        self, job: Job, template: Template, sampling: Sampling, kept: Kept, prompt_tokens: bool
    ) -> str:
        settings = {**sampling.key(self.sample), **kept_key(kept, prompt_tokens)}
        model_id = job.identity.model_id
        return content_key(model_id, template.name, list(kept.layers), settings, self.prompt_id)


@dataclass
class _Session:
    """A loaded model that answers; batches are halved where they do not fit the memory."""

    loaded: LoadedModel
    run: Run
    kept: Kept
    sampling: Sampling
    prompt_tokens: bool
    rendered: Mapping[str, Rendered]

    def run_all(
        self, wanted: Mapping[str, _Completion], batch_size: int
    ) -> Iterator[dict[str, Trace]]:
        """Completions by key, batch after batch, those of the longest prompts first."""
        left = sorted(wanted, key=lambda key: -self._prompt_length(wanted[key]))
        while left:
            batch = left[:batch_size]
            try:
                traces = self._batch([wanted[key] for key in batch])
            except torch.OutOfMemoryError as error:
                if len(batch) == 1:
                    raise ModelError(
                        f"a completion of {self._prompt_length(wanted[batch[0]])} and "
                        f"{self.sampling.max_new_tokens} tokens does not fit the memory of "
                        f"{self.loaded.device} beside {self.loaded.spec.name}: try --dtype bfloat16"
                    ) from error
                batch_size = len(batch) // 2
                self.run.messages.append(f"out of memory: batch size halved to {batch_size}")
                continue
            yield dict(zip(batch, traces, strict=True))
            left = left[batch_size:]

    def _prompt_length(self, completion: _Completion) -> int:
        return len(self.rendered[completion.prompt_id].token_ids)

    def _batch(self, completions: Sequence[_Completion]) -> list[Trace]:
        prompts = self._read_prompts(completions) if self.prompt_tokens else {}
        traces = generate(
            self.loaded,
            {item.name: self.rendered[item.prompt_id].token_ids for item in completions},
            self.kept.layers,
            self.sampling,
            readouts=self.kept.readouts,
            top_count=self.kept.top_count,
        )
        for trace, completion in zip(traces, completions, strict=True):
            trace.prompt_id = completion.prompt_id
        if not self.prompt_tokens:
            return traces
        return [with_prompt(prompts[trace.prompt_id], trace) for trace in traces]

    def _read_prompts(self, completions: Sequence[_Completion]) -> dict[str, Trace]:
        """The prompts' own tokens, each once, in a pass that gives every distribution."""
        names = list(dict.fromkeys(completion.prompt_id for completion in completions))
        texts = [Given(name, self.rendered[name].token_ids) for name in names]
        return {
            trace.prompt_id: trace
            for indices in batches(self.loaded, texts, DEFAULT_TOKEN_BUDGET)
            for trace in score(
                self.loaded, [texts[index] for index in indices], self.kept, reads_prompt=True
            )
        }


def generations_there(root: Path, model: str) -> set[str]:
    """The ids of a model's completions; what a killed job left of others is removed."""
    # Under the lock, since a job on another version of the model may be between its files.
    with committing(root, model):
        for table in WRITTEN_BEFORE_GENERATIONS:
            remove_uncommitted(root, table, "generations", model)
    found = rows(
        connect_tables(root, "generations"),
        "select generation_id from generations where model = ?",
        [model],
    )
    return {row["generation_id"] for row in found}


def write_traces(
    root: Path,
    run: Run,
    loaded: LoadedModel,
    kept: Kept,
    traces: Mapping[str, Trace],
    described: Mapping[str, dict[str, Any]],
) -> None:
    """Commit completions (generation_id -> trace), as files of one name in each table.

    `described` are the columns of `generations` that a trace does not tell, by generation_id.
    """
    model = loaded.spec.name
    name = content_key(sorted(traces))
    decode = cache(lambda token_id: str(loaded.tokenizer.decode([token_id])))
    tokens = [
        _token_rows(key, trace, layer, kept, decode, run)
        for key, trace in traces.items()
        for layer in kept.recorded_layers
    ]
    projections = [
        _projection_rows(key, trace, readout_key, run)
        for key, trace in traces.items()
        for readout_key in trace.projections
    ]
    generations = [
        _generation_row(key, trace, loaded) | {"run_id": run.run_id} | described[key]
        for key, trace in traces.items()
    ]
    with committing(root, model):
        _write(root, "generation_tokens", tokens, name, model)
        _write(root, "token_projections", projections, name, model)
        _write(root, "generations", [rows_table("generations", generations)], name, model)
    run.tokens += sum(len(trace.token_ids) for trace in traces.values())
    run.rows += sum(len(table) for table in itertools.chain(tokens, projections))


def _write(root: Path, table: str, groups: list[pa.Table], name: str, model: str) -> None:
    if groups:
        write_rows(root, table, [pa.concat_tables(groups)], name=name, partition=model)


def _generation_row(generation_id: str, trace: Trace, loaded: LoadedModel) -> dict[str, Any]:
    completion = trace.token_ids[-trace.first_step :]
    return {
        "generation_id": generation_id,
        "model_id": loaded.identity.model_id,
        "prompt_id": trace.prompt_id,
        "text": loaded.tokenizer.decode(completion, skip_special_tokens=True),
        "token_count": len(completion),
        "finish_reason": trace.finish_reason,
    }


def _token_rows(
    generation_id: str,
    trace: Trace,
    layer: int,
    kept: Kept,
    decode: Callable[[int], str],
    run: Run,
) -> pa.Table:
    count = len(trace.token_ids)
    same = {
        "generation_id": generation_id,
        "layer": layer,
        "site": RESID_POST,
        "run_id": run.run_id,
    }
    vectors = pa.nulls(count, VECTOR)
    if layer in kept.layers:
        vectors = vector_array(trace.vectors[layer])
    return rows_table(
        "generation_tokens",
        [],
        **_repeated("generation_tokens", same, count),
        step=_steps(trace),
        token_id=trace.token_ids,
        token=[decode(token_id) for token_id in trace.token_ids],
        logprob=_known(trace.logprobs),
        entropy=_known(trace.entropies),
        top_tokens=_top_tokens(trace),
        vector=vectors,
    )


def _projection_rows(
    generation_id: str, trace: Trace, readout_key: tuple[str, int, str | None], run: Run
) -> pa.Table:
    axis_id, layer, alignment_id = readout_key
    same = {
        "axis_id": axis_id,
        "generation_id": generation_id,
        "layer": layer,
        "alignment_id": alignment_id,
        "run_id": run.run_id,
    }
    return rows_table(
        "token_projections",
        [],
        **_repeated("token_projections", same, len(trace.token_ids)),
        step=_steps(trace),
        projection=pa.array(trace.projections[readout_key], pa.float64()),
    )


def _repeated(table: str, same: dict[str, Any], count: int) -> dict[str, pa.Array]:
    schema = TABLES[table].file_schema
    return {
        name: pa.repeat(pa.scalar(value, schema.field(name).type), count)
        for name, value in same.items()
    }


def _steps(trace: Trace) -> pa.Array:
    return pa.array(range(trace.first_step, trace.first_step + len(trace.token_ids)), pa.int32())


def _known(values: Sequence[float]) -> pa.Array:
    """Null where there is no distribution: at the first token of a prompt."""
    return pa.array(np.asarray(values, dtype=np.float32), from_pandas=True)


def _top_tokens(trace: Trace) -> pa.Array:
    if trace.top_ids is None or trace.top_logprobs is None:
        return pa.nulls(len(trace.token_ids), TOP_TOKENS)
    width = trace.top_ids.shape[1]
    tokens = pa.StructArray.from_arrays(
        [
            pa.array(trace.top_ids.reshape(-1).astype(np.int32)),
            pa.array(trace.top_logprobs.reshape(-1).astype(np.float32)),
        ],
        fields=list(TOP_TOKENS.value_type),
    )
    offsets = pa.array(np.arange(len(trace.top_ids) + 1) * width, pa.int32())
    unknown = pa.array(trace.top_ids[:, 0] < 0)
    return pa.ListArray.from_arrays(offsets, tokens, type=TOP_TOKENS, mask=unknown)
