"""What the page shows: studies, axes, prompts with every model's projection, completions.

Each answer is one statement over the warehouse. Texts of the positive class leave as numbers that
stand for them (`Hidden.put`).
"""

from __future__ import annotations

from axes.explore.hiding import POSITIVE_PROMPTS, Hidden, Json, covered, plain_rows
from axes.warehouse.connection import Connection, rows
from axes.warehouse.errors import QueryError

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

# The models projected on an axis, and whether a calibration gives them a probability.
_MODELS = """
select
    model_id,
    model || case when count(*) over (partition by model) > 1 then '@' || model_id[:8] else '' end
        as model,
    model_id in (
        select model_id from calibrations
        where axis_id = $axis and method in ('platt', 'isotonic')
    ) as is_calibrated
from (select distinct model_id, model from projections where axis_id = $axis)
order by model, model_id
"""

_SETS = """
select
    prompt_set as name, count(*) as prompt_count,
    list(distinct label order by label) filter (where label is not null) as labels,
    list(distinct category order by category) filter (where category is not null) as categories
from v_prompts group by prompt_set order by prompt_set
"""

_AXES = """
select axes.axis_id, axes.name, axes.kind, count(distinct model_id) as model_count,
    count(*) as row_count
from projections join axes using (axis_id)
group by axes.axis_id, axes.name, axes.kind
order by axes.kind = 'universal' desc, axes.kind, axes.name, axes.axis_id
"""

# The newest first, with the shared axis of each.
_STUDIES = """
select *, (
    select any_value(axis_id) from evaluations
    where evaluations.study_id = v_studies.study_id and scorer = 'universal'
) as axis_id
from v_studies order by started_at desc, study_id limit 20
"""
_VERDICTS = """
select study_id, text as claim, prompt_set, verdict, coalesce(cause, to_decide) as cause
from v_claims
where list_contains($studies, study_id)
order by position, prompt_set
"""
_STORED = ("models", "prompts", "labels", "activations", "axes", "projections", "generations")

_CARD = """
select * exclude (vector, parameters) from axes where axis_id = $axis
"""
_AUROCS = """
select model_id, model, prompt_set, auroc, is_in_sample, positive_count, negative_count
from v_auroc where axis_id = $axis order by prompt_set, model, model_id
"""
_ON_AXIS = """
from v_projections
where axis_id = $axis and model_id = $model and prompt_set = $prompt_set and isfinite(projection)
"""
_HISTOGRAM = f"""
with shown as (select coalesce(label, 'no label') as label, projection {_ON_AXIS}),
ranges as (select min(projection) as low, max(projection) as high from shown)
select
    label, low, high, count(*) as count,
    coalesce(least(29, floor(30 * (projection - low) / nullif(high - low, 0))), 0)::int as bin
from shown, ranges group by all order by label, bin
"""
_EXTREMES = f"""
with ranked as (
    select
        prompt_id, text, label, category, projection, count(*) over () as total,
        row_number() over (order by projection desc, prompt_id) as place
    {_ON_AXIS}
)
select *, prompt_id in ({POSITIVE_PROMPTS}) as is_hidden
from ranked where place <= 10 or place > total - 10 order by place
"""
_COSINES = """
select other_axis_id as axis_id, other_axis_name as name, other_kind as kind, cosine
from v_axis_cosines where axis_id = $axis
order by abs(cosine) desc, name limit 100
"""

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
    generations.generation_id, generations.model, generations.model_id, generations.prompt_id,
    prompts.text as prompt, generations.text, prompts.prompt_set, prompts.category, prompts.label,
    generations.template, generations.temperature, generations.finish_reason, generations.source,
    generations.steering_mode, generations.strength,
    generations.prompt_id in ({POSITIVE_PROMPTS}) as is_hidden
from generations left join v_prompts as prompts using (prompt_id)
where generations.generation_id = $generation
order by prompts.prompt_set limit 1
"""

# Completions of the same prompt to compare it with, those of other models first.
_OTHERS = """
select generation_id, model, steering_mode, strength
from generations
where prompt_id = $prompt_id and generation_id != $generation
order by model = $model, model, steering_mode, strength, sample, generation_id limit 100
"""

# The axes and layers that a completion is projected on, shared axes first.
_LOCATIONS = """
select distinct axes.axis_id, axes.name, axes.kind, token_projections.layer
from token_projections join axes using (axis_id)
where token_projections.model = $model and generation_id = $generation
order by kind = 'universal' desc, kind, name, axis_id, token_projections.layer
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

# What a token's colour is relative to: all completion tokens of the model.
_SCALE = """
select avg(projection) as centre, stddev_pop(projection) as spread, count(*) as scale_count
from token_projections
where model = $model and axis_id = $axis and layer = $layer and step >= 0
"""


def choices(connection: Connection) -> Json:
    """What the page offers: sets with their labels and categories, axes, models."""
    axes = []
    for row in rows(connection, _AXES):
        axes.append({**row, "source": "axis"})
        if row["kind"] == "universal":
            axes += [
                {**row, "source": source, "name": f"{source.replace('_', ' ')} of {row['name']}"}
                for source in ("native", "leave_one_out")
            ]
    return {"sets": rows(connection, _SETS), "axes": axes}


def start(connection: Connection) -> Json:
    """The newest studies with the verdicts on their claims, and how many rows tables have."""
    studies = rows(connection, _STUDIES)
    verdicts = rows(connection, _VERDICTS, {"studies": [row["study_id"] for row in studies]})
    for study in studies:
        study["started_at"] = study["started_at"].isoformat(sep=" ", timespec="minutes")
        study["verdicts"] = [row for row in verdicts if row["study_id"] == study["study_id"]]
    counts = " union all ".join(
        f"select '{name}' as name, count(*) from {name}" for name in _STORED
    )
    return {"studies": studies, "stored": rows(connection, f"from ({counts}) as c(name, count)")}


def axis_page(
    connection: Connection,
    hidden: Hidden,
    *,
    axis: str,
    model: str | None = None,
    prompt_set: str | None = None,
) -> Json:
    """An axis: its card, AUROCs, cosines, and a model's projections of a set on it.

    `histogram` counts prompts in 30 equal bins for each label; `prompts` are the ten highest and
    the ten lowest. The model (by its id) and the set default to the first that have projections.
    Raises `QueryError`.
    """
    cards = rows(connection, _CARD, {"axis": axis})
    if not cards:
        raise QueryError(f"no axis {axis}")
    aurocs = rows(connection, _AUROCS, {"axis": axis})
    shown: Json = next(
        (
            row
            for row in aurocs
            if model in (None, row["model_id"]) and prompt_set in (None, row["prompt_set"])
        ),
        {"model_id": model, "prompt_set": prompt_set},
    )
    on_axis = {"axis": axis, "model": shown["model_id"], "prompt_set": shown["prompt_set"]}
    prompts = covered(rows(connection, _EXTREMES, on_axis), hidden, ["text"])
    return {
        "card": plain_rows(cards)[0],
        "aurocs": plain_rows(aurocs),
        **on_axis,
        "histogram": rows(connection, _HISTOGRAM, on_axis),
        "prompts": prompts,
        "cosines": rows(connection, _COSINES, {"axis": axis}),
    }


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
) -> Json:
    """One page of prompts with named models; texts of the positive class are hidden.

    `source` is `axis`, or `native` or `leave_one_out` of the universal axis `axis`. Ranks are
    relative to all prompts of the set, 0 to 1, whatever the filter.
    """
    if source not in _PROJECTED or scale not in _SCALES or order not in _ORDERS:
        raise QueryError(
            f"source must be one of {', '.join(_PROJECTED)}; scale one of {', '.join(_SCALES)}; "
            f"order one of {', '.join(_ORDERS)}"
        )
    statement = _PAGE.format(
        projected=_PROJECTED[source],
        positive=POSITIVE_PROMPTS,
        order="asked.position" if order == "position" else f"wide.{order}",
        direction="desc" if is_descending else "asc",
    )
    parameters = {"axis": axis, "prompt_set": prompt_set, "source": source, "scale": scale}
    parameters |= {"label": label, "category": category, "search": search, "model": model}
    prompts, answer = _page(connection, hidden, statement, parameters, page, ["text"])
    for row in prompts:
        row["models"] = {entry.pop("model_id"): entry for entry in row["models"] or []}
    return {**answer, "prompts": prompts, "models": rows(connection, _MODELS, {"axis": axis})}


def completion_page(
    connection: Connection,
    hidden: Hidden,
    *,
    prompt_set: str | None = None,
    prompt_id: str | None = None,
    model: str | None = None,
    label: str | None = None,
    page: int = 0,
) -> Json:
    """One page of completions; those of positive prompts are hidden."""
    parameters = {"prompt_set": prompt_set, "prompt_id": prompt_id, "model": model, "label": label}
    completions, answer = _page(
        connection, hidden, _COMPLETIONS, parameters, page, ["prompt", "text"]
    )
    models = rows(connection, "select distinct model from generations order by model")
    return {**answer, "completions": completions, "models": [row["model"] for row in models]}


def completion(
    connection: Connection,
    hidden: Hidden,
    *,
    generation: str,
    axis: str | None = None,
    layer: int | None = None,
    is_revealed: bool = False,
) -> Json:
    """A completion's tokens with their projections on an axis at a layer (default: the first).

    `centre` and `spread` are mean and standard deviation over all completion tokens of the model.
    The tokens of a hidden completion are null until `is_revealed`. Raises `QueryError`.
    """
    found = rows(connection, _COMPLETION, {"generation": generation})
    if not found:
        raise QueryError(f"no completion {generation}")
    (answer,) = found
    key = {"model": answer["model"], "generation": generation}
    locations = rows(connection, _LOCATIONS, key)
    location: Json = {"axis": None, "layer": None}
    for row in locations:
        if axis in (None, row["axis_id"]) and layer in (None, row["layer"]):
            location = {"axis": row["axis_id"], "layer": row["layer"]}
            break
    steps = rows(connection, _TOKENS, {**key, **location})
    is_hidden = answer["is_hidden"] and not is_revealed
    if is_hidden:
        steps = [{**step, "token": None} for step in steps]
        answer |= {name: hidden.put(answer[name] or "") for name in ("prompt", "text")}
    (scale,) = rows(connection, _SCALE, {"model": answer["model"], **location})
    others = rows(connection, _OTHERS, {**key, "prompt_id": answer["prompt_id"]})
    return {
        **answer,
        **location,
        **scale,
        "is_hidden": is_hidden,
        "places": locations,
        "steps": steps,
        "others": others,
    }


def _page(
    connection: Connection,
    hidden: Hidden,
    statement: str,
    parameters: Json,
    page: int,
    texts: list[str],
) -> tuple[list[Json], Json]:
    """The rows of one page, their `texts` hidden where they must be, and its place among all."""
    limits = {"limit": PAGE_ROWS, "offset": page * PAGE_ROWS}
    found = covered(rows(connection, statement, {**parameters, **limits}), hidden, texts)
    total = found[0]["total"] if found else 0
    return found, {"total": total, "page": page, "page_rows": PAGE_ROWS}
