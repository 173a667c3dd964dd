"""What of an experiment has not been run yet, batch by batch, and its rows into the warehouse."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from axes.ingest.forward.batching import plan_batches
from axes.ingest.generation.intervention_metrics import (
    Row,
    complete,
    measure_prompts,
    measure_texts,
)
from axes.ingest.generation.outcomes import longest_repeat, repetition
from axes.ingest.generation.sampling import Sampling, end_ids
from axes.ingest.generation.sweeps import Sweep
from axes.ingest.jobs import Job
from axes.ingest.models.load import LoadedModel
from axes.warehouse.connection import connect_tables, rows
from axes.warehouse.locks import committing
from axes.warehouse.runs import Run
from axes.warehouse.writer import content_key, rows_table, write_rows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

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
