"""Completions of the same prompts by several models, each with its projection on one shared axis.

Routing and comparing read their rows here. Where a model completed a prompt several times
(samples), the values of the prompt are means over these completions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from axes.analysis.activations import count_prompts
from axes.warehouse.axes import find_axis
from axes.warehouse.errors import AxisError, CoverageError, LabelError, ModelError
from axes.warehouse.handle import Warehouse
from axes.warehouse.writer import content_key

# How the projections of a completion's tokens become one number, as SQL over them.
STATISTICS = {
    "mean": "avg(projection)",
    "last": "arg_max(projection, step)",
    "max": "max(projection)",
}
_SHARED_KINDS = ("universal", "leave_one_out", "imported", "random")

# Column of `CompletionRow` -> what is missing where it is null, and what stores it.
_REQUIRED = {
    "model": (
        "completion",
        "run `axes ingest traces {model} --prompts {prompt_set}`, or give --limit",
    ),
    "answer_projection": (
        "projection of the completion",
        "run the same `axes study` again: it projects new traces",
    ),
    "prompt_projection": (
        "projection of the prompt",
        "run `axes study` with --evaluate {prompt_set}",
    ),
    "outcome": ("label of the completion", "label the completions as {labeler}"),
}


@dataclass(frozen=True)
class CompletionQuery:
    """Which completions to read, and what of them.

    `labeler` labels completions; the outcome is its positive class, or with `is_negated` its
    negative one. `only` keeps the prompts of one class, `limit` the first so many of the set.
    `templates` and `max_new_tokens` select among the settings that a model was run with.
    """

    axis_id: str
    models: tuple[str, ...]
    labeler: str
    statistic: str = "mean"
    is_negated: bool = False
    templates: tuple[str, ...] = ()
    max_new_tokens: int | None = None
    refusals: str = "refusal_substring"
    only: bool | None = None
    limit: int | None = None
    allow_missing: bool = False


@dataclass(frozen=True)
class CompletionRow:
    """One prompt with the completions of one model; None where a value is missing.

    `outcome` and `refusal` are shares of the completions, `is_positive` is the prompt's label;
    `setting` says how the completions were generated, by which version of the model.
    """

    prompt_id: str
    pair_id: str | None
    is_positive: bool | None
    model: str | None
    model_id: str | None
    generation_ids: list[str]
    prompt_projection: float | None
    answer_projection: float | None
    token_count: float | None
    outcome: float | None
    refusal: float | None
    setting: str


@dataclass(frozen=True)
class Completions:
    """Prompts that every model has completed, in the set's order: `rows` is `[prompt][model]`."""

    prompt_set: str
    models: tuple[str, ...]
    rows: Sequence[Sequence[CompletionRow]]
    missing_count: int = 0

    @property
    def model_ids(self) -> list[str]:
        return [str(row.model_id) for row in self.rows[0]]

    @property
    def prompt_ids(self) -> list[str]:
        return [row.prompt_id for row, *_ in self.rows]

    @property
    def pair_ids(self) -> list[str | None]:
        return [row.pair_id for row, *_ in self.rows]

    @property
    def groups(self) -> Int[np.ndarray, " prompt"]:
        """A number for every matched pair; a prompt without a pair is a group by itself."""
        names = [
            f"pair {row.pair_id}" if row.pair_id else f"prompt {row.prompt_id}"
            for row, *_ in self.rows
        ]
        return np.unique(names, return_inverse=True)[1]

    @property
    def is_positive(self) -> Bool[np.ndarray, " prompt"] | None:
        """The labels of the prompts; None where a prompt has no label."""
        labels = [row.is_positive for row, *_ in self.rows]
        return None if None in labels else np.array(labels, dtype=bool)

    @property
    def outcome(self) -> Float[np.ndarray, "prompt model"]:
        return self.values("outcome")

    @property
    def refusal(self) -> Float[np.ndarray, "prompt model"] | None:
        """None where the labeler of refusals has not labelled every completion."""
        refusal = self.values("refusal")
        return None if np.isnan(refusal).any() else refusal

    @property
    def row_set_hash(self) -> str:
        """Hash of the prompts, completions and labels in order."""
        refusal = None if self.refusal is None else self.refusal.tolist()
        names = [[row.generation_ids for row in prompt] for prompt in self.rows]
        return content_key(self.prompt_ids, names, self.outcome.tolist(), refusal)

    def projection(self, source: str) -> Float[np.ndarray, "prompt model"]:
        """The projections of the `prompt` or of the `answer` (the completion)."""
        return self.values(f"{source}_projection")

    def take(self, index: Int[np.ndarray, " row"]) -> Completions:
        """The prompts of `index`, in its order."""
        return replace(self, rows=[self.rows[i] for i in index])

    def values(self, column: str) -> Float[np.ndarray, "prompt model"]:
        """A numeric column of `CompletionRow` as a matrix."""
        values = [[getattr(row, column) for row in prompt] for prompt in self.rows]
        return np.array(values, dtype=np.float64)


def shared_axis_id(warehouse: Warehouse, axis: str | None = None) -> str:
    """The id of a shared axis (as `find_axis` takes it), by default the latest universal one.

    Raises `AxisError` where no shared axis or several match.
    """
    shared = find_axis(warehouse, axis or "universal")
    if shared.kind not in _SHARED_KINDS:
        raise AxisError(
            f"{axis} is a {shared.kind} axis: routing needs a shared axis "
            f"({', '.join(_SHARED_KINDS)})"
        )
    return shared.axis_id


def projected_models(warehouse: Warehouse, axis_id: str) -> tuple[str, ...]:
    """The models whose completions are projected on an axis."""
    return tuple(
        warehouse.column(
            "select distinct model from token_projections where axis_id = ? order by model",
            [axis_id],
        )
    )


def read_completions(warehouse: Warehouse, prompt_set: str, query: CompletionQuery) -> Completions:
    """The completions of a prompt set by every model of the query.

    Raises `CoverageError` where prompts have no completion, projection or label of every model
    (with `allow_missing` they are left out and counted), `ModelError` where a model was run with
    several settings, `LabelError` for a labeler without completions or a class without prompts.
    """
    count_prompts(warehouse, prompt_set)
    names = ("axis_id", "labeler", "is_negated", "refusals", "only", "limit", "max_new_tokens")
    parameters = {
        "prompt_set": prompt_set,
        "models": list(query.models),
        "templates": list(query.templates),
        **{name: getattr(query, name) for name in names},
    }
    by_prompt: dict[str, dict[str | None, CompletionRow]] = {}
    settings: dict[str | None, set[str]] = {}
    for row in warehouse.rows(CompletionRow, _statement(query), parameters):
        by_prompt.setdefault(row.prompt_id, {})[row.model] = row
        settings.setdefault(row.model, set()).add(row.setting)
    if not by_prompt:
        raise LabelError(f"no prompt of {prompt_set} has a label of the requested class")
    for model in query.models:
        # Completions of different settings or model versions are not of one distribution.
        if len(listed := settings.get(model, ())) > 1:
            raise ModelError(
                f"{model} completed {prompt_set} in {len(listed)} settings "
                f"({'; '.join(sorted(listed))}): select one with --template and --max-new-tokens"
            )
    complete = [
        [by_model[model] for model in query.models]
        for by_model in by_prompt.values()
        if all(_missing_column(by_model.get(model)) is None for model in query.models)
    ]
    missing_count = len(by_prompt) - len(complete)
    if missing_count and not (query.allow_missing and complete):
        raise _coverage_error(warehouse, prompt_set, query, list(by_prompt.values()))
    return Completions(prompt_set, query.models, complete, missing_count)


def _statement(query: CompletionQuery) -> str:
    """One row per prompt and model in the set's order; null where something is missing."""
    return f"""
        with
        completions as (
            select model, model_id, generation_id, prompt_id, token_count,
                concat_ws(', ', template, max_new_tokens || ' tokens', 'top-p ' || top_p,
                    'temperature ' || temperature, left(model_id, 8)) as setting
            from generations
            -- Steered completions are another model's in effect; external texts are not its own.
            where list_contains($models, model) and axis_id is null and source is null
                and (len($templates) = 0 or list_contains($templates, template))
                and ($max_new_tokens is null or max_new_tokens = $max_new_tokens)
        ),
        on_axis as (
            select model_id, prompt_id, layer, projection from projections
            where axis_id = $axis_id and list_contains($models, model)
        ),
        projected as (
            select generation_id, layer, {STATISTICS[query.statistic]} as projection
            from token_projections
            where axis_id = $axis_id and list_contains($models, model) and step >= 0
            group by generation_id, layer
        ),
        labelled as (
            select generation_id,
                any_value(is_positive) filter (where labeler = $labeler) as is_outcome,
                any_value(is_positive) filter (where labeler = $refusals) as is_refusal
            from labels
            where labeler in ($labeler, $refusals) and generation_id is not null
            group by generation_id
        )
        select
            prompts.prompt_id,
            any_value(prompts.pair_id) as pair_id,
            any_value(prompts.is_positive) as is_positive,
            completions.model,
            completions.model_id,
            list(generation_id order by generation_id) as generation_ids,
            any_value(on_axis.projection) as prompt_projection,
            case when count(*) = count(projected.projection) then avg(projected.projection) end
                as answer_projection,
            avg(completions.token_count) as token_count,
            case when count(*) = count(is_outcome) then avg((is_outcome != $is_negated)::int) end
                as outcome,
            case when count(*) = count(is_refusal) then avg(is_refusal::int) end as refusal,
            coalesce(setting, '') as setting
        from v_prompts as prompts
        left join completions using (prompt_id)
        left join on_axis
            on completions.model_id = on_axis.model_id and prompts.prompt_id = on_axis.prompt_id
        left join projected using (generation_id, layer)
        left join labelled using (generation_id)
        where prompts.prompt_set = $prompt_set and ($limit is null or prompts.position < $limit)
            and ($only is null or prompts.is_positive = $only)
        group by prompts.prompt_id, prompts.position, completions.model, completions.model_id,
            setting
        order by prompts.position, completions.model
    """


def _missing_column(row: CompletionRow | None) -> str | None:
    """The first required column without a value, if any."""
    if row is None:
        return "model"
    return next((column for column in _REQUIRED if getattr(row, column) is None), None)


def _coverage_error(
    warehouse: Warehouse,
    prompt_set: str,
    query: CompletionQuery,
    prompts: Sequence[Mapping[str | None, CompletionRow]],
) -> CoverageError | LabelError:
    """The error that names the most frequent gap and how to fill it."""
    gaps = Counter(
        (model, column)
        for model in query.models
        for by_model in prompts
        if (column := _missing_column(by_model.get(model))) is not None
    )
    ((model, column), count), *_ = gaps.most_common(1)
    if column == "outcome":
        labelers = warehouse.column(
            "select distinct labeler from labels where generation_id is not null order by labeler"
        )
        if query.labeler not in labelers:
            return LabelError(
                f"no labeler {query.labeler} of completions (stored: "
                f"{', '.join(labelers) or 'none'}): an outcome is a label of the completion, "
                "not of the prompt"
            )
    what, fix = _REQUIRED[column]
    fix = fix.format(model=model, prompt_set=prompt_set, labeler=query.labeler)
    return CoverageError(
        f"{count} of {len(prompts)} prompts of {prompt_set} have no {what} of {model}: {fix}, "
        "or continue without them with --allow-missing"
    )
