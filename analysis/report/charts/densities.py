"""Where the projections of each class lie, model by model."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt

from axes.analysis.report.charts.panels import (
    LINES,
    classes,
    colours,
    dashes,
    faded,
    number,
    panels,
    picked,
    word,
)
from axes.analysis.report.section import Row, Section

STATEMENT = """
with judged as (
    select distinct axis_id, model_id, prompt_set, scorer
    from evaluations
    where
        study_id = '{study_id}' and metric = 'auroc' and fitted_on is null
        and scorer in ('native', 'universal')
)

select
    densities.model,
    densities.prompt_set,
    judged.scorer,
    densities.label,
    densities.row_count,
    densities.projection,
    densities.density,
    densities.is_positive
from v_projection_densities as densities
inner join judged
    on densities.axis_id = judged.axis_id
    and densities.model_id = judged.model_id
    and densities.prompt_set = judged.prompt_set
order by
    judged.scorer, densities.prompt_set, densities.model, densities.is_positive,
    densities.projection
"""


def chart(rows: Sequence[Row]) -> alt.FacetChart:
    """A panel for each axis, model and prompt set; each on a scale of its own."""
    labels = classes(rows)
    pick = picked("label")
    x = alt.X("projection:Q", title="projection")
    y = alt.Y("density:Q", title=None, axis=None, stack=None)
    color = alt.Color("label:N", title=None, scale=colours(labels), legend=LINES)
    areas = alt.Chart().mark_area().encode(x=x, y=y, color=color, opacity=faded(pick, 0.2))
    lines = (
        alt.Chart()
        .mark_line()
        .encode(
            x=x,
            y=y,
            color=color,
            strokeDash=alt.StrokeDash("label:N", title=None, scale=dashes(labels)),
            opacity=faded(pick),
            tooltip=[
                word("label"),
                number("projection", digits=2),
                word("row_count", "prompts of the class"),
            ],
        )
        .add_params(pick)
    )
    by = "datum.scorer + ': ' + datum.model + ' on ' + datum.prompt_set"
    return panels(areas, lines, by=by, height=130, margin=0, independent=("x", "y"))


SECTION = Section(
    name="densities",
    title="Projections by class",
    reading="How the projections of either class are spread, smoothed with a Gaussian kernel. Each "
    "panel has its own scale: models differ in the size of their activations, so compare within a "
    "panel only. AUROC is high where the classes hardly overlap.",
    statement=STATEMENT,
    missing="No projections of this study are stored: run its `axes study` again.",
    draw=chart,
)
