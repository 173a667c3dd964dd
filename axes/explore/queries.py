"""Prompts with every model's projection beside each other, and how far the models disagree.

Completions, and one of them token by token with its projections.
"""

from __future__ import annotations

from typing import Any

from axes.explore.hiding import POSITIVE_PROMPTS, Hidden
from axes.warehouse.connection import Connection, rows
from axes.warehouse.errors import QueryError

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


PAGE_ROWS = 25

# What is projected on: one axis for all models, or what went into a universal one. The rows are
# those of v_projections_wide, which takes three times as long to say them for every set.
_PROJECTED = {
    "axis": """
        select model_id, prompt_id, projection from projections where axis_id = $axis
    """,
    "native": """
        select projections.model_id, projections.prompt_id, projections.projection
        from axes as shared
        join axes as aligned on list_contains(shared.source_axis_ids, aligned.axis_id)
        join projections on projections.axis_id = aligned.source_axis_ids[1]
        where shared.axis_id = $axis
    """,
    "leave_one_out": """
        select projections.model_id, projections.prompt_id, projections.projection
        from axes as shared
        join axes as held_out
            on held_out.kind = 'leave_one_out'
            and list_has_all(shared.source_axis_ids, held_out.source_axis_ids)
            and len(held_out.source_axis_ids) = len(shared.source_axis_ids) - 1
        join projections
            on projections.axis_id = held_out.axis_id
            and projections.model = held_out.held_out_model
        where shared.axis_id = $axis
    """,
}
# On which scale models are compared: place among the set's prompts, or calibrated probability.
_SCALES = ("rank", "probability")
_ORDERS = ("position", "disagreement", "mean", "model")

_PAGE = """
with
asked as (
    select * from v_prompts where prompt_set = $prompt_set
),
projected as (
    select projected.model_id, projected.prompt_id, projected.projection
    from ({projected}) as projected(model_id, prompt_id, projection)
    semi join asked using (prompt_id)
    where projected.projection is not null
),
-- Platt's before isotonic: both give the chance of the positive class.
calibration as (
    select model_id, parameters from calibrations
    where axis_id = $axis and method in ('platt', 'isotonic') and $source = 'axis'
    qualify row_number() over (
        partition by model_id order by method = 'platt' desc, target, calibration_id
    ) = 1
),
scaled as (
    select
        projected.*,
        percent_rank() over (partition by model_id order by projection) as rank,
        calibrated(projection, parameters) as probability
    from projected left join calibration using (model_id)
),
compared as (
    select *, case $scale when 'rank' then rank else probability end as shown from scaled
),
wide as (
    select
        prompt_id,
        list(
            {{model_id: model_id, projection: projection, rank: rank, probability: probability}}
        ) as models,
        case when count(shown) > 1 then max(shown) - min(shown) end as disagreement,
        avg(shown) as mean,
        any_value(projection) filter (where model_id = $model) as model
    from compared group by prompt_id
),
completions as (
    select prompt_id, count(*) as completion_count from generations group by prompt_id
)
select
    asked.prompt_id, asked.text, asked.source, asked.category, asked.label, asked.is_positive,
    asked.position, wide.models, wide.disagreement, wide.mean,
    coalesce(completion_count, 0) as completion_count,
    asked.prompt_id in ({positive}) as is_hidden,
    count(*) over () as total
from asked
left join wide using (prompt_id)
left join completions using (prompt_id)
where ($label is null or asked.label = $label)
    and ($category is null or asked.category = $category)
    and ($search is null or contains(lower(asked.text), lower($search)))
order by {order} {direction} nulls last, asked.position, asked.prompt_id
limit $limit offset $offset
"""


def choices(connection: Connection) -> dict[str, Any]:
    """What the page offers: sets with their labels and categories, axes, models."""
    sets = rows(
        connection,
        """
        select
            prompt_set as name, count(*) as prompt_count,
            list(distinct label order by label) filter (where label is not null) as labels,
            list(distinct category order by category) filter (where category is not null)
                as categories
        from v_prompts group by prompt_set order by prompt_set
        """,
    )
    projected = rows(
        connection,
        """
        select axes.axis_id, axes.name, axes.kind, count(distinct model_id) as model_count,
            count(*) as row_count
        from projections join axes using (axis_id)
        group by axes.axis_id, axes.name, axes.kind
        order by axes.kind = 'universal' desc, model_count desc, axes.name, axes.axis_id
        """,
    )
    axes = []
    for row in projected:
        axes.append({**row, "source": "axis"})
        if row["kind"] == "universal":
            axes += [
                {**row, "source": source, "name": f"{source.replace('_', ' ')} of {row['name']}"}
                for source in ("native", "leave_one_out")
            ]
    return {"sets": sets, "axes": axes}


def prompt_page(
    connection: Connection,
    hidden: Hidden,
    *,
    prompt_set: str,
    axis: str | None = None,
    source: str = "axis",
    scale: str = "rank",
    label: str | None = None,
    category: str | None = None,
    search: str | None = None,
    order: str = "position",
    model: str | None = None,
    is_descending: bool = False,
    page: int = 0,
) -> dict[str, Any]:
    """One page of prompts, models named, texts of the positive class hidden.

    `source` is `axis`, or `native` or `leave_one_out` of the universal axis `axis`. Ranks are
    places among all prompts of the set, 0 to 1, whatever is filtered.
    """
    if source not in _PROJECTED or scale not in _SCALES or order not in _ORDERS:
        raise QueryError(
            f"a source is {', '.join(_PROJECTED)}; a scale {', '.join(_SCALES)}; "
            f"an order {', '.join(_ORDERS)}"
        )
    statement = _PAGE.format(
        projected=_PROJECTED[source],
        positive=POSITIVE_PROMPTS,
        order="asked.position" if order == "position" else f"wide.{order}",
        direction="desc" if is_descending else "asc",
    )
    found = rows(
        connection,
        statement,
        {
            "axis": axis,
            "prompt_set": prompt_set,
            "source": source,
            "scale": scale,
            "label": label,
            "category": category,
            "search": search,
            "model": model,
            "limit": PAGE_ROWS,
            "offset": page * PAGE_ROWS,
        },
    )
    for row in found:
        if row.pop("is_hidden"):
            row["text"] = hidden.put(row["text"])
        row["models"] = {one.pop("model_id"): one for one in row["models"] or []}
    return {
        "prompts": found,
        "models": _models(connection, axis),
        "total": found[0]["total"] if found else 0,
        "page": page,
        "page_rows": PAGE_ROWS,
    }


def _models(connection: Connection, axis: str | None) -> list[dict[str, Any]]:
    """The models projected on the axis; `is_calibrated` where a probability can be given."""
    found = rows(
        connection,
        """
        select distinct
            model_id, model,
            model_id in (
                select model_id from calibrations
                where axis_id = $axis and method in ('platt', 'isotonic')
            ) as is_calibrated
        from projections where axis_id = $axis order by model, model_id
        """,
        {"axis": axis},
    )
    names = [row["model"] for row in found]
    for row in found:
        if names.count(row["model"]) > 1:
            row["model"] = f"{row['model']}@{row['model_id'][:8]}"
    return found
