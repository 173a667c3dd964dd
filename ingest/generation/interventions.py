"""The job: steer a model along axes at several strengths, and store the effects.

On a labelled set of prompts it measures how likely the completion opens with one of some phrases,
and how far the steered model's last activations have moved; on benign texts, how far the next-token
distributions moved (KL) and how well the texts are still predicted; of greedy completions, if
requested, how much they repeat themselves. Their text is stored for labelers.

A batch is planned over all prompts, whatever of it is stored, so that a job that is started again
makes the same batches, with the same numerics.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from axes.ingest.forward.batching import Batches, plan_batches
from axes.ingest.forward.templates import Template
from axes.ingest.generation.intervention_metrics import (
    complete,
    longest_repeat,
    measure_prompts,
    measure_texts,
    repetition,
)
from axes.ingest.generation.sweeps import UNSTEERED, Outcome, Sweep, read_sweeps
from axes.ingest.generation.teacher_forcing import logits_budget
from axes.ingest.generation.token_statistics import Trace
from axes.ingest.generation.traces import generation_ids, generation_row
from axes.ingest.jobs import IngestSummary, Job, Part, open_job
from axes.ingest.models.load import LoadedModel, require_layers
from axes.ingest.models.registry import ModelSpec
from axes.ingest.prompts import Prompt, read_prompts
from axes.ingest.requests import InterventionRequest, Sampling
from axes.warehouse.errors import ModelError
from axes.warehouse.handle import Warehouse
from axes.warehouse.names import counted, did_you_mean
from axes.warehouse.runs import Run
from axes.warehouse.storage.store import committing
from axes.warehouse.writer import content_key, rows_table, write_rows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_COMPLETIONS = 16
# Benign texts are read as they are.
_RAW = Template()

Encoded = Mapping[str, list[int]]
Work = Callable[[LoadedModel], None]
Measure = Callable[[LoadedModel, Encoded, Sequence[Sweep]], Iterator[Outcome]]
# Intervention, prompt, metric, and the limit of the completion.
Key = tuple[str, str, str, int]


def ingest_interventions(
    root: Path, spec: ModelSpec, request: InterventionRequest
) -> IngestSummary:
    """Measure each axis under each strength where that is not stored.

    Raises `AxisError` for an axis that does not exist or lies in another space, and as
    `ingest_activations` does.
    """
    phrases = opener_phrases(request.openers)
    prompts = read_prompts(root, {request.prompt_set: request.limit})
    benign = read_prompts(root, {request.benign_set: request.benign_limit})
    job = open_job(root, spec, request)
    layer_count = job.layer_count()
    require_layers(spec.name, layer_count, request.layers or ())
    with job.running("ingest interventions", request.parameters()) as running:
        sweeps = read_sweeps(root, spec.name, job.identity.model_id, layer_count, request)
        skipped, room = running.run.skipped, request.max_new_tokens

        def encode(prompts: Sequence[Prompt], template: Template) -> Encoded:
            texts = {prompt.prompt_id: prompt.text for prompt in prompts}
            usable = job.render_usable(
                texts, request, template=template, skipped=skipped, room=room
            )
            return {prompt_id: prompt.token_ids for prompt_id, prompt in usable.items()}

        encoded, texts = encode(prompts, request.rendering), encode(benign, _RAW)
        completed = [sweep for sweep in sweeps if sweep.axis_id in request.completed_axis_ids]
        planner = _Planner(job, running.run, request, phrases)
        work = [
            *planner.prompt_work([UNSTEERED, *sweeps], encoded),
            *planner.text_work([UNSTEERED, *sweeps], texts),
            *planner.completion_work([UNSTEERED, *completed] if completed else [], encoded),
        ]

        def compute(loaded: LoadedModel, _: object, done: Callable[[int], None]) -> None:
            for batch in work:
                batch(loaded)
                done(1)

        running.compute("intervene", "batches", [Part((), len(work), not work)], compute)
    return job.summary(running.run, len(prompts) + len(benign), planner.new_count)


def opener_phrases(name: str) -> tuple[str, ...]:
    """The phrases of `openers.toml` under a name; raises `ModelError` for an unknown one."""
    phrases = tomllib.loads((Path(__file__).parents[1] / "openers.toml").read_text())
    if name not in phrases:
        raise ModelError(
            f"no openers {name}{did_you_mean(name, phrases)}: there are {', '.join(phrases)}"
        )
    return tuple(phrases[name])


def first_ids(tokenizer: PreTrainedTokenizerBase, phrases: Sequence[str]) -> list[int]:
    """The first token of each phrase, with and without a space before it."""
    spelled = [f"{space}{phrase}" for phrase in phrases for space in ("", " ")]
    return sorted({tokenizer(text, add_special_tokens=False).input_ids[0] for text in spelled})


class _Planner:
    """Plans the missing rows in batches, each of which commits its rows at its end."""

    def __init__(
        self, job: Job, run: Run, request: InterventionRequest, phrases: Sequence[str]
    ) -> None:
        self._job, self._run, self._request, self._phrases = job, run, request, phrases
        sql = """
            select intervention_id, prompt_id, metric, new_tokens
            from intervention_outcomes
            where model = ?
        """
        warehouse = Warehouse.open_tables(job.root, "intervention_outcomes")
        self._stored: set[Key] = set(warehouse.connection.execute(sql, [job.spec.name]).fetchall())
        self.new_count = 0

    def prompt_work(self, sweeps: Sequence[Sweep], encoded: Encoded) -> Iterator[Work]:
        """Forward passes over prompts, for the first tokens of their completions."""
        name, template = self._request.openers, self._request.rendering
        openers = {name: first_ids(self._job.tokenizer, self._phrases)}
        measure = partial(measure_prompts, template=template.name, openers=openers)
        budget = self._request.token_budget
        return self._passes(sweeps, encoded, f"{name}_openers", template, budget, measure)

    def text_work(self, sweeps: Sequence[Sweep], encoded: Encoded) -> Iterator[Work]:
        """Forward passes over texts, of which every position's logits are kept."""
        budget = logits_budget(len(self._job.tokenizer), self._request.token_budget)
        measure = partial(measure_texts, template=_RAW.name)
        return self._passes(sweeps, encoded, "log_perplexity", _RAW, budget, measure)

    def _passes(
        self,
        sweeps: Sequence[Sweep],
        encoded: Encoded,
        metric: str,
        template: Template,
        token_budget: int,
        measure: Measure,
    ) -> Iterator[Work]:
        """Batches of prompts of like length, few enough to run under all strengths together."""
        lengths = {name: len(encoded[name]) for name in sorted(encoded)}
        strength_count = max(len(sweep.strengths) for sweep in sweeps)
        for names in plan_batches(lengths, max(token_budget // strength_count, 1)):
            batch = {name: encoded[name] for name in names}
            pending = self._pending(sweeps, batch, metric, template)
            if pending:
                yield partial(self._run_pass, measure, batch, pending)

    def _run_pass(
        self, measure: Measure, batch: Encoded, pending: Sequence[Sweep], loaded: LoadedModel
    ) -> None:
        def rows(names: list[str]) -> list[Outcome]:
            return list(measure(loaded, {name: batch[name] for name in names}, pending))

        sizes = {name: len(token_ids) for name, token_ids in batch.items()}
        parts = Batches(loaded, self._run, max(sizes.values()) * len(sizes))
        for _, measured in parts.compute(sizes, rows, lambda name: _described(batch[name])):
            self._write(measured)

    def completion_work(self, sweeps: Sequence[Sweep], encoded: Encoded) -> Iterator[Work]:
        """Greedy completions, several prompts and strengths in one batch."""
        limit, template = self._request.max_new_tokens, self._request.rendering
        for sweep in sweeps:
            pairs = [
                (prompt_id, strength)
                for prompt_id in sorted(encoded, key=lambda name: (len(encoded[name]), name))
                for strength in sweep.strengths
            ]
            for start in range(0, len(pairs), _COMPLETIONS):
                batch = pairs[start : start + _COMPLETIONS]
                keys = {
                    (self._intervention(sweep, template, strength), prompt_id, "repetition", limit)
                    for prompt_id, strength in batch
                }
                if not self._stored >= keys:
                    yield partial(self._run_completions, sweep, batch, encoded)

    def _run_completions(
        self,
        sweep: Sweep,
        batch: Sequence[tuple[str, float]],
        encoded: Encoded,
        loaded: LoadedModel,
    ) -> None:
        limit = self._request.max_new_tokens
        parts = Batches(loaded, self._run, len(batch), "batch size")
        for pairs, traces in parts.compute(
            dict.fromkeys(batch, 1),
            lambda pairs: complete(loaded, pairs, encoded, sweep, limit),
            lambda pair: _described(encoded[pair[0]]),
        ):
            for (prompt_id, _), trace in zip(pairs, traces, strict=True):
                trace.prompt_id = prompt_id
            strengths = [strength for _, strength in pairs]
            self._write_completions(loaded, sweep, strengths, traces, encoded)

    def _write_completions(
        self,
        loaded: LoadedModel,
        sweep: Sweep,
        strengths: Sequence[float],
        traces: Sequence[Trace],
        encoded: Encoded,
    ) -> None:
        """Completions first: a measurement that names one must not be stored before it."""
        root, model, limit = self._job.root, self._job.spec.name, self._request.max_new_tokens
        template, sampling = self._request.rendering.name, Sampling(max_new_tokens=limit).columns()
        generations: dict[str, dict[str, object]] = {}
        outcomes: list[Outcome] = []
        for strength, trace in zip(strengths, traces, strict=True):
            row = sweep.columns(loaded.identity.model_id, template, strength)
            key = content_key(row["intervention_id"], trace.prompt_id, limit)
            described: dict[str, object] = {
                "template": template,
                "prompt_token_count": len(encoded[trace.prompt_id]),
                "intervention_id": row["intervention_id"],
            }
            if sweep.axis_id is not None:
                described |= {"axis_id": sweep.axis_id, "strength": strength}
                described |= {"steering_mode": row["mode"], "steering_layers": row["layers"]}
            generations[key] = generation_row(key, trace, loaded, self._run) | sampling | described
            same: Outcome = {**row, "prompt_id": trace.prompt_id, "generation_id": key}
            for metric, measure in (("repetition", repetition), ("longest_repeat", longest_repeat)):
                value = measure(trace.token_ids)
                outcomes.append({**same, "metric": metric, "new_tokens": limit, "value": value})
        self._run.tokens += sum(len(trace.token_ids) for trace in traces)
        with committing(root, model):
            stored = generation_ids(root, model)
            if new := [key for key in generations if key not in stored]:
                table = rows_table("generations", [generations[key] for key in new])
                write_rows(root, "generations", table, name=content_key(new), partition=model)
        self._write(outcomes)

    def _pending(
        self, sweeps: Sequence[Sweep], batch: Collection[str], metric: str, template: Template
    ) -> list[Sweep]:
        """The sweeps with those strengths under which some prompt of the batch was not run."""

        def is_stored(sweep: Sweep, strength: float) -> bool:
            intervention = self._intervention(sweep, template, strength)
            return self._stored >= {(intervention, prompt_id, metric, 0) for prompt_id in batch}

        pending = []
        for sweep in sweeps:
            strengths = [each for each in sweep.strengths if not is_stored(sweep, each)]
            if strengths:
                pending.append(replace(sweep, strengths=tuple(strengths)))
        return pending

    def _intervention(self, sweep: Sweep, template: Template, strength: float) -> str:
        model_id = self._job.identity.model_id
        return sweep.columns(model_id, template.name, strength)["intervention_id"]

    def _write(self, measured: Iterable[Outcome]) -> None:
        """Store the rows that are not stored: a batch may hold some of a job of fewer strengths."""
        root, model = self._job.root, self._job.spec.name
        new = {}
        for row in measured:
            key = (row["intervention_id"], row["prompt_id"], row["metric"], row["new_tokens"])
            if key not in self._stored:
                new[key] = {**row, "run_id": self._run.run_id}
        if new:
            table = rows_table("intervention_outcomes", list(new.values()))
            name = content_key(sorted(new))
            with committing(root, model):
                write_rows(root, "intervention_outcomes", table, name=name, partition=model)
        self._stored |= new.keys()
        self._run.rows += len(new)
        self.new_count += len({prompt_id for _, prompt_id, _, _ in new})


def _described(token_ids: Sequence[int]) -> str:
    return f"a prompt of {counted(len(token_ids), 'token')}"
