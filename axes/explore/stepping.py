"""Completions, and one of them token by token with its projections."""

from __future__ import annotations

from typing import Any

from axes.explore.hiding import POSITIVE_PROMPTS, Hidden
from axes.warehouse.connection import Connection, rows
from axes.warehouse.errors import QueryError

PAGE_ROWS = 25

_COMPLETIONS = f"""
with
described as (
    select distinct on (prompt_id)
        prompt_id, prompt_set, category, label, position, text as prompt
    from v_prompts
    where $prompt_set is null or prompt_set = $prompt_set
    order by prompt_id, prompt_set
)
select
    generations.generation_id, generations.model, generations.text, generations.token_count,
    generations.sample, generations.steering_mode, generations.strength,
    described.prompt, described.prompt_set, described.category, described.label,
    generations.prompt_id in ({POSITIVE_PROMPTS}) as is_hidden,
    count(*) over () as total
from generations join described using (prompt_id)
where ($model is null or generations.model = $model)
    and ($prompt_id is null or generations.prompt_id = $prompt_id)
    and ($label is null or described.label = $label)
order by
    described.prompt_set, described.position, generations.model, generations.generation_id
limit $limit offset $offset
"""

_COMPLETION = f"""
select
    generations.*,
    prompts.text as prompt, prompts.prompt_set, prompts.category, prompts.label,
    generations.prompt_id in ({POSITIVE_PROMPTS}) as is_hidden
from generations left join v_prompts as prompts using (prompt_id)
where generations.generation_id = $generation
order by prompts.prompt_set limit 1
"""

_TOKENS = """
with
tokens as (
    select step, any_value(token) as token, any_value(logprob) as logprob,
        any_value(entropy) as entropy
    from generation_tokens
    where model = $model and generation_id = $generation
    group by step
),
projected as (
    select step, projection from token_projections
    where model = $model and generation_id = $generation and axis_id = $axis and layer = $layer
)
select
    step, token, logprob, entropy, projection,
    avg(projection) over (partition by step >= 0 order by step) as running_mean
from tokens left join projected using (step)
order by step
"""


def completion_page(
    connection: Connection,
    hidden: Hidden,
    *,
    prompt_set: str | None = None,
    prompt_id: str | None = None,
    model: str | None = None,
    label: str | None = None,
    page: int = 0,
) -> dict[str, Any]:
    """One page of completions, those of positive prompts hidden."""
    found = rows(
        connection,
        _COMPLETIONS,
        {
            "prompt_set": prompt_set,
            "prompt_id": prompt_id,
            "model": model,
            "label": label,
            "limit": PAGE_ROWS,
            "offset": page * PAGE_ROWS,
        },
    )
    for row in found:
        _hide(row, hidden)
    return {
        "completions": found,
        "models": [
            row["model"]
            for row in rows(connection, "select distinct model from generations order by model")
        ],
        "total": found[0]["total"] if found else 0,
        "page": page,
        "page_rows": PAGE_ROWS,
    }


def completion(
    connection: Connection,
    hidden: Hidden,
    *,
    generation: str,
    axis: str | None = None,
    layer: int | None = None,
    is_revealed: bool = False,
) -> dict[str, Any]:
    """A completion's tokens with their projections on an axis at a layer (default: the first).

    `centre` and `spread` are mean and standard deviation over all completion tokens of the model
    there: what a colour says. Tokens of a hidden completion are null until `is_revealed`.
    """
    found = rows(connection, _COMPLETION, {"generation": generation})
    if not found:
        raise QueryError(f"no completion {generation}")
    described = found[0]
    model, is_hidden = described["model"], described["is_hidden"] and not is_revealed
    places = _places(connection, model, generation)
    chosen = next(
        (
            place
            for place in places
            if axis in (None, place["axis_id"]) and layer in (None, place["layer"])
        ),
        None,
    )
    place = {"axis": chosen and chosen["axis_id"], "layer": chosen and chosen["layer"]}
    steps = rows(connection, _TOKENS, {"model": model, "generation": generation, **place})
    if is_hidden:
        _hide(described, hidden)
        steps = [{**step, "token": None} for step in steps]
    kept = (
        "generation_id",
        "model",
        "model_id",
        "prompt_id",
        "prompt",
        "text",
        "prompt_set",
        "category",
        "label",
        "template",
        "temperature",
        "finish_reason",
        "source",
        "steering_mode",
        "strength",
    )
    return {
        **{name: described[name] for name in kept},
        "is_hidden": is_hidden,
        "places": places,
        **place,
        **_scale(connection, model, place),
        "steps": steps,
    }


def _hide(row: dict[str, Any], hidden: Hidden) -> None:
    if row.pop("is_hidden"):
        for name in ("prompt", "text"):
            row[name] = hidden.put(row[name] or "")


def _places(connection: Connection, model: str, generation: str) -> list[dict[str, Any]]:
    """The axes and layers that the completion is projected on, shared axes first."""
    return rows(
        connection,
        """
        select distinct axes.axis_id, axes.name, axes.kind, token_projections.layer
        from token_projections join axes using (axis_id)
        where token_projections.model = $model and generation_id = $generation
        order by kind = 'universal' desc, kind, name, axis_id, token_projections.layer
        """,
        {"model": model, "generation": generation},
    )


def _scale(connection: Connection, model: str, place: dict[str, Any]) -> dict[str, Any]:
    return rows(
        connection,
        """
        select avg(projection) as centre, stddev_pop(projection) as spread,
            count(*) as scale_count
        from token_projections
        where model = $model and axis_id = $axis and layer = $layer and step >= 0
        """,
        {"model": model, **place},
    )[0]
