"""What the page draws: prompts on two axes, layers by models, and two model versions compared."""

from __future__ import annotations

from axes.explore.hiding import POSITIVE_PROMPTS, Hidden, Json, covered, plain_rows
from axes.warehouse.connection import Connection, rows
from axes.warehouse.errors import QueryError

# Points of a scatter: more would overlap, and take long to draw.
MAX_POINTS = 5_000
_SHOWN_CHARACTERS = 300

# Every axis with every model projected on it, shared axes first.
_READOUTS = """
select
    axis_id, name, kind, model_id,
    model || case when count(*) over (partition by axis_id, model) > 1
        then '@' || model_id[:8] else '' end as model
from (
    select distinct axes.axis_id, axes.name, axes.kind, model_id, model
    from projections join axes using (axis_id)
)
order by kind = 'universal' desc, kind, name, axis_id, model, model_id
"""

# Ids of prompts are hashes: the first of them are a sample without preference.
_POINTS = f"""
with
of_x as (select prompt_id, projection from projections where axis_id = $x and model_id = $x_model),
of_y as (select prompt_id, projection from projections where axis_id = $y and model_id = $y_model)
select
    prompt_id, coalesce(label, 'no label') as label, of_x.projection as x, of_y.projection as y,
    text[:{_SHOWN_CHARACTERS}] || if(length(text) > {_SHOWN_CHARACTERS}, '…', '') as text,
    prompt_id in ({POSITIVE_PROMPTS}) as is_hidden,
    corr(of_x.projection, of_y.projection) over () as correlation, count(*) over () as total
from v_prompts join of_x using (prompt_id) join of_y using (prompt_id)
where prompt_set = $prompt_set and isfinite(of_x.projection) and isfinite(of_y.projection)
order by prompt_id limit $limit
"""

# Directions of one kind at the layers of every model, the most complete first.
_FAMILY = (
    "concat_ws(', ', method, prompt_set, (positive_count + negative_count) || ' prompts', site, "
    "pooling, template, row_set_hash)"
)
_FAMILIES = f"""
select {_FAMILY} as family, any_value(prompt_set) as prompt_set, count(*) as axis_count
from axes where kind = 'native' and fitted_model is not null
group by family order by axis_count desc, family
"""
_LAYERS = f"""
with
directions as (
    select *, lag(vector) over (partition by space_model_id order by layer) as before
    from axes where kind = 'native' and {_FAMILY} = $family
),
evaluated as (
    select model_id, layer, auroc from v_layer_tests
    join (
        select study_id, any_value(parameters) as parameters from evaluations
        where scorer = 'native_cross_validated' group by study_id
    ) using (study_id)
    join (select distinct site, pooling, template, prompt_set as family_set from directions)
        on site = parameters ->> 'site' and pooling = parameters ->> 'pooling'
        and template = parameters ->> 'template' and family_set = prompt_set
    where prompt_set = $prompt_set
    qualify row_number() over (partition by model_id, layer order by study_id) = 1
)
select
    directions.layer, directions.axis_id,
    fitted_model || if(count(*) over (partition by fitted_model, directions.layer) > 1,
        '@' || space_model_id[:8], '') as model,
    projected.auroc, projected.is_in_sample, evaluated.auroc as out_of_fold,
    cosine(vector, before) as cosine
from directions
left join v_auroc as projected
    on directions.axis_id = projected.axis_id and space_model_id = projected.model_id
    and projected.prompt_set = $prompt_set
left join evaluated on space_model_id = evaluated.model_id and directions.layer = evaluated.layer
order by directions.layer, model
"""

_DIFFERENCES = """
select study_id, first, second, prompt_set, count(*) as layer_count
from v_model_differences group by all order by first, second, prompt_set, study_id
"""
_DIFFERENCE_LAYERS = "from v_model_differences where study_id = $study order by layer"
_MOVES = """
from v_axis_moves where study_id = $study
order by abs(moved) desc nulls last, axis_share desc nulls last, axis_name, axis_id
"""


def scatter(
    connection: Connection,
    hidden: Hidden,
    *,
    prompt_set: str,
    x: str | None = None,
    x_model: str | None = None,
    y: str | None = None,
    y_model: str | None = None,
) -> Json:
    """The prompts of a set by their projections on two axes, each of one model (by its id).

    The axes default to the first two that are stored. There are at most `MAX_POINTS` points, each
    with the `total` and the `correlation` of all; their texts are cut, positive ones hidden.
    """
    readouts = rows(connection, _READOUTS)
    chosen: Json = {"x": x, "x_model": x_model, "y": y, "y_model": y_model}
    for readout, axis in zip(readouts * 2, ("x", "y"), strict=False):
        if chosen[axis] is None:
            chosen |= {axis: readout["axis_id"], f"{axis}_model": readout["model_id"]}
    asked = {**chosen, "prompt_set": prompt_set, "limit": MAX_POINTS}
    points = covered(plain_rows(rows(connection, _POINTS, asked)), hidden, ["text"])
    return {"readouts": readouts, **chosen, "points": points}


def layers(
    connection: Connection, *, family: str | None = None, prompt_set: str | None = None
) -> Json:
    """The models' own directions at every layer: AUROCs and the cosine with the layer before.

    A family is fitted alike on the same prompts; it defaults to the one with most directions, and
    the prompt set to the family's. `out_of_fold` is null where `axes evaluate` has stored none.
    """
    families = rows(connection, _FAMILIES)
    chosen = next((row for row in families if family in (None, row["family"])), {})
    asked = {"family": family or chosen.get("family")}
    asked["prompt_set"] = prompt_set or chosen.get("prompt_set")
    cells = plain_rows(rows(connection, _LAYERS, asked))
    return {"families": families, **asked, "cells": cells}


def differences(connection: Connection, *, study: str | None = None) -> Json:
    """Two versions of a model (`axes diff`): differences by layer, and moves along axes.

    Raises `QueryError` where `study` is not a comparison.
    """
    comparisons = rows(connection, _DIFFERENCES)
    study = study or next((row["study_id"] for row in comparisons), None)
    by_layer = plain_rows(rows(connection, _DIFFERENCE_LAYERS, {"study": study}))
    if study and not by_layer:
        raise QueryError(f"no comparison {study}")
    moves = plain_rows(rows(connection, _MOVES, {"study": study}))
    return {"comparisons": comparisons, "study": study, "layers": by_layer, "moves": moves}
