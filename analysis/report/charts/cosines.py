"""Cosines of the models' aligned directions with each other and with the shared axis."""

from __future__ import annotations

import altair as alt

from axes.analysis.report.charts.heat import heat_map
from axes.analysis.report.charts.panels import numbers, words
from axes.analysis.report.section import Rows, Section


def chart(rows: Rows) -> alt.FacetChart:
    """A square for each pair, with its cosine in it."""
    return heat_map(
        rows,
        x="member",
        y="other",
        value="cosine",
        domain=(-1.0, 1.0),
        by="'aligned directions'",
        tooltip=[*words("member", "other"), *numbers("cosine", digits=4)],
    )


SECTION = Section(
    name="cosines",
    title="Cosines",
    explanation="Cosines of each model's direction, mapped into the reference's space, with the "
    "other directions and with the universal axis, which is made from them. Directions can agree "
    "closely (cosine 0.9) and still separate the classes poorly (AUROC 0.6), so do not read the "
    "cosine as evidence of a shared axis. The next table has the quality of each alignment.",
    sql="""
with members as (
    select
        axis_id, coalesce(fitted_model, 'universal axis') as member,
        axis_id = $universal as is_shared
    from axes
    where
        axis_id = $universal
        or axis_id in (select unnest(source_axis_ids) from axes where axis_id = $universal)
),

cosines as (
    select axis_id, other_axis_id, cosine
    from v_axis_cosines
    where axis_id in (select axis_id from members)
    union all
    select axis_id, axis_id, 1.0
    from members
)

select members.member, others.member as other, cosines.cosine
from cosines
inner join members on cosines.axis_id = members.axis_id
inner join members as others on cosines.other_axis_id = others.axis_id
order by members.is_shared desc, members.member, others.is_shared desc, others.member
""",
    draw=chart,
)
