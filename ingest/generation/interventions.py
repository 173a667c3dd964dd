"""The job: steer a model along axes, by many strengths, and store what becomes of it.

Of a labelled set of prompts it measures how likely the answer opens with one of some phrases and
how far the steered model's own last activations have moved; of benign texts, how far the
next-token distributions moved (KL) and how well the texts are still predicted; of greedy
completions, where asked for, how much they repeat themselves. Their text is stored, so that
labelers can say the rest.

What of an experiment has not been run yet, batch by batch, and its rows into the warehouse.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from axes.ingest.forward.batching import plan_batches
from axes.ingest.forward.templates import Template
from axes.ingest.generation.generate import Sampling, end_ids
from axes.ingest.generation.intervention_metrics import (
    Row,
    complete,
    longest_repeat,
    measure_prompts,
    measure_texts,
    repetition,
)
from axes.ingest.generation.sweeps import UNSTEERED, Change, Sweep, read_sweeps
from axes.ingest.jobs import IngestSummary, Job, open_job, stops_between_batches
from axes.ingest.models.load import LoadedModel, require_layers
from axes.ingest.models.registry import ModelSpec
from axes.ingest.prompts import read_prompts
from axes.warehouse.connection import connect_tables, rows
from axes.warehouse.errors import ModelError
from axes.warehouse.ledger import committing
from axes.warehouse.names import did_you_mean
from axes.warehouse.progress import track
from axes.warehouse.runs import Run, record_run
from axes.warehouse.writer import content_key, rows_table, write_rows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def ingest_interventions(
    root: Path,
    spec: ModelSpec,
    prompt_set: str,
    benign_set: str,
    *,
    axis_ids: Sequence[str],
    strengths: Sequence[float],
    layers: Sequence[int] | None = None,
    change: Change | None = None,
    template: str = "chat",
    system: str | None = None,
    limit: int | None = None,
    benign_limit: int | None = 16,
    completed_axis_ids: Sequence[str] = (),
    max_new_tokens: int = 32,
    openers: str = "refusal",
    device: str | None = None,
    dtype: str | None = None,
    token_budget: int = 2048,
    skip_unusable: bool = False,
) -> IngestSummary:
    """Measure each axis under each strength at each of `layers` (default: the axis's own).

    `ablate` takes the axis from all of `layers` at once (default: every block). Axes lie in the
    model's own space. Completions of `max_new_tokens` are made for `completed_axis_ids`, and if
    there are any for the unsteered model. Texts of `benign_set` are read raw. What is there is not
    measured again. Raises `AxisError` for an axis that is not there or of another space, and as
    `ingest_activations` does.
    """
    change, policy = change or Change(), Template(template, system)
    phrases = opener_phrases(openers)
    prompts = read_prompts(root, {prompt_set: limit})
    benign = read_prompts(root, {benign_set: benign_limit})
    job = open_job(root, spec, device, dtype)
    layer_count = job.layer_count()
    require_layers(spec.name, layer_count, layers or ())
    parameters = {
        **job.described(),
        "prompt_set": prompt_set,
        "benign_set": benign_set,
        "axis_ids": list(axis_ids),
        "strengths": list(strengths),
        "layers": layers,
        **vars(change),
        "template": policy.name,
        "system": system,
        "limit": limit,
        "benign_limit": benign_limit,
        "completed_axis_ids": list(completed_axis_ids),
        "max_new_tokens": max_new_tokens,
        "openers": openers,
    }
    with (
        job.lock(),
        record_run(root, "ingest interventions", parameters, device=job.device) as run,
        stops_between_batches() as check_interrupt,
    ):
        sweeps = read_sweeps(
            root,
            spec.name,
            job.identity.model_id,
            layer_count,
            axis_ids=axis_ids,
            strengths=strengths,
            layers=layers,
            change=change,
            benign_set=benign_set,
        )
        answered, texts = (
            {
                prompt_id: prompt.token_ids
                for prompt_id, prompt in job.render_usable(
                    {prompt.prompt_id: prompt.text for prompt in chosen},
                    rendering,
                    skipped=run.skipped,
                    skip_unusable=skip_unusable,
                    room=max_new_tokens,
                ).items()
            }
            for chosen, rendering in ((prompts, policy), (benign, Template()))
        )
        completed = [sweep for sweep in sweeps if sweep.axis_id in completed_axis_ids]
        trials = Trials(job, run, openers, phrases)
        work = [
            *trials.prompt_work([UNSTEERED, *sweeps], answered, policy.name, token_budget),
            *trials.text_work([UNSTEERED, *sweeps], texts, token_budget),
            *trials.completion_work(
                [UNSTEERED, *completed] if completed else [], answered, policy.name, max_new_tokens
            ),
        ]
        with track(f"intervene {spec.name}", len(work), "batches") as advance:
            for batch in work:
                batch()
                advance(1)
                check_interrupt()
    return job.summary(run, len(prompts) + len(benign), trials.new_count)


def opener_phrases(name: str) -> tuple[str, ...]:
    """The phrases of `openers.toml` under a name; raises `ModelError` for one that is not there."""
    known = tomllib.loads((Path(__file__).parents[1] / "openers.toml").read_text())
    if name not in known:
        raise ModelError(
            f"no openers {name}{did_you_mean(name, known)}: there are {', '.join(known)}"
        )
    return tuple(known[name])


# Numbers in the logits of one pass at most; with what is computed from them about a gigabyte.
_LOGITS = 1 << 26
_COMPLETIONS = 16
# Benign texts are read as they are.
_TEXTS = "raw"

Work = Callable[[], None]
# Intervention, prompt, metric, and the limit of the completion.
Key = tuple[str, str, str, int]


class Trials:
    """Plans what is missing in batches, and runs one with its rows committed at the end.

    A batch is planned over all prompts, whatever of it is there, so that a job that is started
    again makes the same batches, with the same numerics.
    """

    def __init__(self, job: Job, run: Run, openers: str, phrases: Sequence[str]) -> None:
        self._job, self._run, self._openers, self._phrases = job, run, openers, phrases
        self._there = _measured(job.root, job.spec.name)
        self.new_count = 0

    @cached_property
    def _loaded(self) -> LoadedModel:
        loaded = self._job.load()
        self._job.register(loaded, self._run)
        return loaded

    def prompt_work(
        self,
        sweeps: Sequence[Sweep],
        encoded: Mapping[str, list[int]],
        template: str,
        token_budget: int,
    ) -> Iterator[Work]:
        """Forward passes over prompts, whose answers' first tokens are looked at."""
        metric = f"{self._openers}_openers"
        for batch in _batches(encoded, token_budget, sweeps):
            pending = self._pending(sweeps, batch, metric, template)

            def measure(batch: dict[str, list[int]] = batch, pending: Any = pending) -> None:
                openers = {self._openers: first_ids(self._job.tokenizer, self._phrases)}
                self._write(measure_prompts(self._loaded, batch, pending, template, openers))

            if pending:
                yield measure

    def text_work(
        self, sweeps: Sequence[Sweep], encoded: Mapping[str, list[int]], token_budget: int
    ) -> Iterator[Work]:
        """Forward passes over texts, of which every position's logits are kept."""
        vocabulary = len(self._job.tokenizer)
        budget = min(token_budget, max(_LOGITS // vocabulary, 1))
        for batch in _batches(encoded, budget, sweeps):
            pending = self._pending(sweeps, batch, "log_perplexity", _TEXTS)

            def measure(batch: dict[str, list[int]] = batch, pending: Any = pending) -> None:
                self._write(measure_texts(self._loaded, batch, pending, _TEXTS))

            if pending:
                yield measure

    def completion_work(
        self,
        sweeps: Sequence[Sweep],
        encoded: Mapping[str, list[int]],
        template: str,
        max_new_tokens: int,
    ) -> Iterator[Work]:
        """Greedy completions, several prompts and strengths in one batch."""
        for sweep in sweeps:
            asked = [
                (prompt_id, strength)
                for prompt_id in sorted(encoded, key=lambda name: (len(encoded[name]), name))
                for strength in sweep.strengths
            ]
            for start in range(0, len(asked), _COMPLETIONS):
                batch = asked[start : start + _COMPLETIONS]
                names = [
                    self._key(sweep, template, strength, prompt_id, "repetition", max_new_tokens)
                    for prompt_id, strength in batch
                ]

                def measure(sweep: Sweep = sweep, batch: Any = batch) -> None:
                    self._complete(sweep, batch, encoded, template, max_new_tokens)

                if not self._there.issuperset(names):
                    yield measure

    def _complete(
        self,
        sweep: Sweep,
        batch: Sequence[tuple[str, float]],
        encoded: Mapping[str, list[int]],
        template: str,
        max_new_tokens: int,
    ) -> None:
        """Completions first: a measurement that names one is not there before it is."""
        root, model = self._job.root, self._job.spec.name
        sampling = Sampling(max_new_tokens)
        ends = end_ids(self._loaded, sampling)
        generations, measured = [], []
        for row, token_ids in complete(
            self._loaded, batch, encoded, sweep, template, max_new_tokens
        ):
            key = content_key(row["intervention_id"], row["prompt_id"], max_new_tokens)
            is_steered = sweep.axis_id is not None
            generations.append(
                {
                    "generation_id": key,
                    "model_id": row["model_id"],
                    "prompt_id": row["prompt_id"],
                    "template": template,
                    "text": self._job.tokenizer.decode(token_ids, skip_special_tokens=True),
                    "token_count": len(token_ids),
                    "prompt_token_count": len(encoded[row["prompt_id"]]),
                    "finish_reason": "stop" if token_ids[-1] in ends else "length",
                    **sampling.columns(),
                    "axis_id": sweep.axis_id,
                    "strength": row["strength"] if is_steered else None,
                    "steering_mode": row["mode"] if is_steered else None,
                    "steering_layers": row["layers"] if is_steered else None,
                    "intervention_id": row["intervention_id"],
                    "run_id": self._run.run_id,
                }
            )
            values = {"repetition": repetition, "longest_repeat": longest_repeat}
            measured += [
                {
                    **row,
                    "metric": metric,
                    "new_tokens": max_new_tokens,
                    "generation_id": key,
                    "value": measure(token_ids),
                }
                for metric, measure in values.items()
            ]
            self._run.tokens += len(token_ids)
        with committing(root, model):
            there = _generations(root, model)
            new = [row for row in generations if row["generation_id"] not in there]
            if new:
                name = content_key([row["generation_id"] for row in new])
                table = rows_table("generations", new)
                write_rows(root, "generations", table, name=name, partition=model)
        self._write(iter(measured))

    def _pending(
        self, sweeps: Sequence[Sweep], batch: Collection[str], metric: str, template: str
    ) -> list[Sweep]:
        """The sweeps with those strengths that some prompt of the batch has not been run under."""
        pending = []
        for sweep in sweeps:
            strengths = tuple(
                strength
                for strength in sweep.strengths
                if not self._there.issuperset(
                    self._key(sweep, template, strength, prompt_id, metric, 0)
                    for prompt_id in batch
                )
            )
            if strengths:
                pending.append(replace(sweep, strengths=strengths))
        return pending

    def _key(
        self,
        sweep: Sweep,
        template: str,
        strength: float,
        prompt_id: str,
        metric: str,
        new_tokens: int,
    ) -> Key:
        described = sweep.described(self._job.identity.model_id, template, strength)
        return described["intervention_id"], prompt_id, metric, new_tokens

    def _write(self, measured: Iterator[Row]) -> None:
        """Add the rows that are not there: a batch may hold some of a job that asked for less."""
        root, model = self._job.root, self._job.spec.name
        new = {}
        for row in measured:
            key = (row["intervention_id"], row["prompt_id"], row["metric"], row["new_tokens"])
            if key not in self._there:
                new[key] = {**row, "run_id": self._run.run_id}
        if new:
            table = rows_table("intervention_outcomes", list(new.values()))
            name = content_key(sorted(new))
            with committing(root, model):
                write_rows(root, "intervention_outcomes", table, name=name, partition=model)
        self._there |= new.keys()
        self._run.rows += len(new)
        self.new_count += len({prompt_id for _, prompt_id, _, _ in new})


def _batches(
    encoded: Mapping[str, list[int]], token_budget: int, sweeps: Sequence[Sweep]
) -> Iterator[dict[str, list[int]]]:
    """Prompts of like length, as many as the budget lets run under all strengths side by side."""
    names = sorted(encoded)
    side_by_side = max(len(sweep.strengths) for sweep in sweeps)
    lengths = [len(encoded[name]) for name in names]
    for batch in plan_batches(lengths, max(token_budget // side_by_side, 1)):
        yield {names[index]: encoded[names[index]] for index in batch}


def _measured(root: Path, model: str) -> set[Key]:
    found = rows(
        connect_tables(root, "intervention_outcomes"),
        "select intervention_id, prompt_id, metric, new_tokens from intervention_outcomes "
        "where model = ?",
        [model],
    )
    return {tuple(row.values()) for row in found}


def _generations(root: Path, model: str) -> set[str]:
    found = rows(
        connect_tables(root, "generations"),
        "select generation_id from generations where model = ?",
        [model],
    )
    return {row["generation_id"] for row in found}


def first_ids(tokenizer: PreTrainedTokenizerBase, phrases: Sequence[str]) -> list[int]:
    """The first token of each phrase, with and without a space before it."""
    spelled = [f"{space}{phrase}" for phrase in phrases for space in ("", " ")]
    return sorted({tokenizer(text, add_special_tokens=False).input_ids[0] for text in spelled})
