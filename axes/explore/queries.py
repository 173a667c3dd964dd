"""Prompts with every model's projection beside each other, and how far the models disagree."""

from __future__ import annotations

from typing import Any

from axes.explore.hiding import POSITIVE_PROMPTS, Hidden
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
