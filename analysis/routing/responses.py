"""The same prompts through several models: every model's own answer, on one shared axis.

Routing and comparing read their rows here. Where a model answered a prompt several times (samples),
its figures are means over these answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from axes.analysis.activations import count_prompts
from axes.warehouse.connection import Connection, query, rows
from axes.warehouse.errors import AxisError, CoverageError, LabelError, ModelError
from axes.warehouse.writer import content_key

# How the projections of an answer's tokens become one number, as SQL over them.
STATISTICS = {
    "mean": "avg(projection)",
    "last": "arg_max(projection, step)",
    "max": "max(projection)",
}
REFUSALS = "refusal_substring"


@dataclass(frozen=True)
class AnswerQuery:
    """Which answers are meant, and what of them is read.

    `labeler` labels completions; the outcome is its positive class, or with `is_negated` its
    negative one. `only` keeps the prompts of one class, `limit` the first so many of the set.
    `templates` and `max_new_tokens` pick among the answers of a model that was run more than once.
    """

    axis_id: str
    models: tuple[str, ...]
    labeler: str
    statistic: str = "mean"
    is_negated: bool = False
    templates: tuple[str, ...] = ()
    max_new_tokens: int | None = None
    refusals: str = REFUSALS
    only: bool | None = None
    limit: int | None = None
    allow_missing: bool = False


@dataclass(frozen=True)
class Answers:
    """Prompts that every model has answered, in the set's order, and what is known of the answers.

    Columns of a matrix are `models`. `outcome` and `refusal` are shares of a prompt's answers;
    `refusal` is None where the labeler of refusals has not labelled all of them, `is_positive`
    (the prompt's own label) where a prompt has none.
    """

    prompt_set: str
    models: tuple[str, ...]
    model_ids: tuple[str, ...]
    prompt_ids: tuple[str, ...]
    pair_ids: tuple[str | None, ...]
    is_positive: Bool[np.ndarray, " prompt"] | None
    prompt_projection: Float[np.ndarray, "prompt model"]
    answer_projection: Float[np.ndarray, "prompt model"]
    token_count: Float[np.ndarray, "prompt model"]
    outcome: Float[np.ndarray, "prompt model"]
    refusal: Float[np.ndarray, "prompt model"] | None
    generation_ids: tuple[tuple[tuple[str, ...], ...], ...]
    missing_count: int

    @property
    def groups(self) -> Int[np.ndarray, " prompt"]:
        """A number for every matched pair; a prompt without one is its own group."""
        names = [
            f"pair {pair}" if pair else f"prompt {prompt_id}"
            for pair, prompt_id in zip(self.pair_ids, self.prompt_ids, strict=True)
        ]
        return np.unique(names, return_inverse=True)[1]

    @property
    def row_set_hash(self) -> str:
        """Hash of prompts, answers and what was labelled in order."""
        refusal = None if self.refusal is None else self.refusal.tolist()
        return content_key(self.prompt_ids, self.generation_ids, self.outcome.tolist(), refusal)

    def projection(self, source: str) -> Float[np.ndarray, "prompt model"]:
        """The projections of the `prompt` or of the `answer`."""
        return {"prompt": self.prompt_projection, "answer": self.answer_projection}[source]

    def take(self, index: Int[np.ndarray, " row"]) -> Answers:
        """The prompts of `index`, in its order."""
        return replace(
            self,
            prompt_ids=tuple(self.prompt_ids[i] for i in index),
            pair_ids=tuple(self.pair_ids[i] for i in index),
            is_positive=None if self.is_positive is None else self.is_positive[index],
            prompt_projection=self.prompt_projection[index],
            answer_projection=self.answer_projection[index],
            token_count=self.token_count[index],
            outcome=self.outcome[index],
            refusal=None if self.refusal is None else self.refusal[index],
            generation_ids=tuple(self.generation_ids[i] for i in index),
        )


def shared_axis(connection: Connection, axis: str | None = None) -> dict[str, Any]:
    """The row of `axes` of a shared axis: an id, its start or a name; the newest universal one.

    Raises `AxisError` where none or several fit.
    """
    found = rows(
        connection,
        """
        select axes.* exclude (vector)
        from axes
        left join runs using (run_id)
        where kind in ('universal', 'leave_one_out', 'imported', 'random')
            and ($axis is null and kind = 'universal' or name = $axis
                or (length($axis) >= 6 and starts_with(axis_id, $axis)))
        order by runs.started_at, axis_id
        """,
        {"axis": axis},
    )
    if axis is not None and len(found) > 1:
        ids = "; ".join(f"{row['axis_id']} ({row['name']})" for row in found)
        raise AxisError(f"{len(found)} shared axes fit {axis}, give one id: {ids}")
    if not found:
        which = f"shared axis {axis}" if axis else "universal axis"
        raise AxisError(f"no {which} in the warehouse: `axes study` makes one")
    return found[-1]


def axis_models(connection: Connection, axis_id: str) -> tuple[str, ...]:
    """The models that have answers projected on an axis."""
    found = rows(
        connection,
        "select distinct model from token_projections where axis_id = ? order by model",
        [axis_id],
    )
    return tuple(row["model"] for row in found)


def read_answers(connection: Connection, prompt_set: str, asked: AnswerQuery) -> Answers:
    """What every model answered to the prompts of a set.

    Raises `CoverageError` where prompts have no answer, projection or label of every model (with
    `allow_missing` they are left out and counted), `ModelError` where a model has answers of
    several settings, `LabelError` for a labeler of prompts or a class that is not there.
    """
    count_prompts(connection, prompt_set)
    expected = _count_asked(connection, prompt_set, asked)
    _require_one_setting(connection, prompt_set, asked)
    table = query(connection, _answers_query(asked), _parameters(prompt_set, asked))
    by_prompt: dict[str, dict[str, dict[str, Any]]] = {}
    for row in table.to_pylist():
        by_prompt.setdefault(row["prompt_id"], {})[row["model"]] = row
    lacking = _lacking(by_prompt, asked, expected)
    whole = [
        of_model
        for of_model in by_prompt.values()
        if all(_lack(of_model.get(model)) is None for model in asked.models)
    ]
    missing_count = expected - len(whole)
    if missing_count and not (asked.allow_missing and whole):
        raise CoverageError(_coverage_message(connection, prompt_set, asked, expected, lacking))
    return as_answers(prompt_set, asked.models, whole, missing_count)


def _count_asked(connection: Connection, prompt_set: str, asked: AnswerQuery) -> int:
    parameters = _parameters(prompt_set, asked)
    found = rows(
        connection,
        "select count(*) as count from v_prompts where prompt_set = $prompt_set "
        "and position < $limit and ($only is null or is_positive = $only)",
        {name: parameters[name] for name in ("prompt_set", "limit", "only")},
    )
    if not found[0]["count"]:
        raise LabelError(f"no prompt of {prompt_set} has a label of the class asked for")
    return found[0]["count"]


def _answers_query(asked: AnswerQuery) -> str:
    """One row per prompt and model, in the set's order; null where something is missing."""
    return f"""
        with
        answers as (
            select model, model_id, generation_id, prompt_id, token_count
            from generations
            where {_PICKED}
        ),
        on_axis as (
            select model_id, prompt_id, layer, projection from projections
            where axis_id = $axis_id and list_contains($models, model)
        ),
        projected as (
            select generation_id, layer, {STATISTICS[asked.statistic]} as projection
            from token_projections
            where axis_id = $axis_id and list_contains($models, model) and step >= 0
            group by generation_id, layer
        ),
        outcomes as (
            select generation_id, is_positive from labels
            where labeler = $labeler and generation_id is not null
        ),
        refusals as (
            select generation_id, is_positive from labels
            where labeler = $refusals and generation_id is not null
        )
        select
            prompts.prompt_id,
            any_value(prompts.pair_id) as pair_id,
            any_value(prompts.is_positive) as is_positive,
            answers.model,
            answers.model_id,
            any_value(on_axis.projection) as prompt_projection,
            case when count(*) = count(projected.projection) then avg(projected.projection) end
                as answer_projection,
            avg(answers.token_count) as token_count,
            case when count(*) = count(outcomes.is_positive)
                then avg((outcomes.is_positive != $is_negated)::int) end as outcome,
            case when count(*) = count(refusals.is_positive)
                then avg(refusals.is_positive::int) end as refusal,
            list(answers.generation_id order by answers.generation_id) as generation_ids
        from v_prompts as prompts
        inner join answers using (prompt_id)
        left join on_axis
            on answers.model_id = on_axis.model_id and prompts.prompt_id = on_axis.prompt_id
        left join projected
            on answers.generation_id = projected.generation_id and on_axis.layer = projected.layer
        left join outcomes on answers.generation_id = outcomes.generation_id
        left join refusals on answers.generation_id = refusals.generation_id
        where prompts.prompt_set = $prompt_set and prompts.position < $limit
            and ($only is null or prompts.is_positive = $only)
        group by prompts.prompt_id, prompts.position, answers.model, answers.model_id
        order by prompts.position, answers.model
    """


# Neither steered answers, which are another model's as it were, nor texts that it was given.
_PICKED = """
    list_contains($models, model)
    and axis_id is null
    and source is null
    and (len($templates) = 0 or list_contains($templates, template))
    and ($max_new_tokens is null or max_new_tokens = $max_new_tokens)
"""


def _parameters(prompt_set: str, asked: AnswerQuery) -> dict[str, Any]:
    return {
        "prompt_set": prompt_set,
        "limit": 2**31 - 1 if asked.limit is None else asked.limit,
        "only": asked.only,
        "axis_id": asked.axis_id,
        "models": list(asked.models),
        "labeler": asked.labeler,
        "is_negated": asked.is_negated,
        "refusals": asked.refusals,
        "templates": list(asked.templates),
        "max_new_tokens": asked.max_new_tokens,
    }


def _require_one_setting(connection: Connection, prompt_set: str, asked: AnswerQuery) -> None:
    """Answers of different settings are not samples of one thing, nor are those of versions."""
    used = ("prompt_set", "models", "templates", "max_new_tokens")
    parameters = _parameters(prompt_set, asked)
    found = rows(
        connection,
        f"""
        select distinct model, model_id, template, max_new_tokens, temperature, top_p
        from generations
        where {_PICKED}
            and prompt_id in (select prompt_id from prompts where prompt_set = $prompt_set)
        order by all
        """,
        {name: parameters[name] for name in used},
    )
    for model in asked.models:
        settings = [row for row in found if row["model"] == model]
        if len(settings) > 1:
            listed = "; ".join(
                f"{row['template']}, {row['max_new_tokens']} tokens, temperature "
                f"{row['temperature']}, {row['model_id'][:8]}"
                for row in settings
            )
            raise ModelError(
                f"{model} answered {prompt_set} in {len(settings)} settings ({listed}): "
                "pick one with --template and --max-new-tokens"
            )


def _lack(row: dict[str, Any] | None) -> str | None:
    """What a prompt's row of a model lacks, if anything."""
    if row is None:
        return "answer"
    wanted = {
        "answer_projection": "projection of the answer",
        "prompt_projection": "projection of the prompt",
        "outcome": "label of the answer",
    }
    return next((what for name, what in wanted.items() if row[name] is None), None)


def _lacking(
    by_prompt: dict[str, dict[str, dict[str, Any]]], asked: AnswerQuery, expected: int
) -> dict[tuple[str, str], int]:
    """(model, what) -> how many of the prompts lack it."""
    counts: dict[tuple[str, str], int] = {}
    for model in asked.models:
        if expected > len(by_prompt):
            counts[model, "answer"] = expected - len(by_prompt)
        for of_model in by_prompt.values():
            what = _lack(of_model.get(model))
            if what is not None:
                counts[model, what] = counts.get((model, what), 0) + 1
    return counts


def _coverage_message(
    connection: Connection,
    prompt_set: str,
    asked: AnswerQuery,
    expected: int,
    lacking: dict[tuple[str, str], int],
) -> str:
    (model, what), count = max(lacking.items(), key=lambda item: item[1])
    mend = {
        "answer": f"run `axes ingest traces {model} --prompts {prompt_set}`, or give --limit",
        "projection of the answer": "run the same `axes study` again: it projects new traces",
        "projection of the prompt": f"run `axes study` with --evaluate {prompt_set}",
        "label of the answer": f"label the completions as {asked.labeler}",
    }[what]
    if what == "label of the answer":
        _require_completion_labels(connection, asked.labeler)
    return (
        f"{count} of {expected} prompts of {prompt_set} have no {what} of {model}: {mend}, "
        "or go on without them with --allow-missing"
    )


def _require_completion_labels(connection: Connection, labeler: str) -> None:
    there = rows(
        connection,
        "select labeler, count(generation_id) as count from labels group by labeler order by all",
    )
    of_completions = [row["labeler"] for row in there if row["count"]]
    if labeler not in of_completions:
        names = ", ".join(of_completions) or "none"
        raise LabelError(
            f"no labeler {labeler} of completions (there: {names}): an outcome is a label of "
            "what a model answered, not of the prompt"
        )


def as_answers(
    prompt_set: str,
    models: tuple[str, ...],
    described: Sequence[Mapping[str, dict[str, Any]]],
    missing_count: int = 0,
) -> Answers:
    """Answers out of one mapping per prompt: model -> a row with the fields of `Answers`."""
    first = [next(iter(of_model.values())) for of_model in described]
    labels = [row["is_positive"] for row in first]

    def column(name: str) -> Float[np.ndarray, "prompt model"]:
        values = [[of_model[model][name] for model in models] for of_model in described]
        return np.array(values, dtype=np.float64).reshape(len(described), len(models))

    refusal = column("refusal")
    return Answers(
        prompt_set=prompt_set,
        models=models,
        model_ids=tuple(described[0][model]["model_id"] for model in models),
        prompt_ids=tuple(row["prompt_id"] for row in first),
        pair_ids=tuple(row["pair_id"] for row in first),
        is_positive=None if None in labels else np.array(labels, dtype=bool),
        prompt_projection=column("prompt_projection"),
        answer_projection=column("answer_projection"),
        token_count=column("token_count"),
        outcome=column("outcome"),
        refusal=None if np.isnan(refusal).any() else refusal,
        generation_ids=tuple(
            tuple(tuple(of_model[model]["generation_ids"]) for model in models)
            for of_model in described
        ),
        missing_count=missing_count,
    )
