"""The distribution of the projections of each class, model by model."""

from __future__ import annotations

from typing import Any

import altair as alt

from axes.analysis.report.charts.panels import LINES, Series, classes, numbers, panels, words
from axes.analysis.report.section import Rows, Section


def chart(rows: Rows) -> alt.FacetChart:
    """A panel for each axis, model and prompt set, each with its own scale."""
    labels = Series("label", classes(rows), legend=LINES)
    at: Any = {
        "x": alt.X("projection:Q", title="projection"),
        "y": alt.Y("density:Q", title=None, axis=None, stack=None),
    }
    tooltip = [
        *words("label"),
        *numbers("projection", digits=2),
        *words(row_count="prompts of the class"),
    ]
    lines = labels.lines(**at, tooltip=tooltip)
    by = "datum.scorer + ': ' + datum.model + ' on ' + datum.prompt_set"
    independent = ("x", "y")
    return panels(labels.bands(**at), lines, by=by, height=130, margin=0, independent=independent)


SECTION = Section(
    name="densities",
    title="Projections by class",
    explanation="Distribution of the projections of each class, smoothed with a Gaussian kernel. "
    "Each panel has its own scale: the size of activations differs between models, so compare "
    "within a panel only. The AUROC is high where the classes hardly overlap.",
    sql="""
with evaluated as (
    select distinct axis_id, model_id, prompt_set, scorer
    from evaluations
    where
        study_id = $study_id and metric = 'auroc' and fitted_on is null
        and scorer in ('native', 'universal')
)

select
    densities.model,
    densities.prompt_set,
    evaluated.scorer,
    densities.label,
    densities.row_count,
    densities.projection,
    densities.density,
    densities.is_positive
from v_projection_densities as densities
inner join evaluated using (axis_id, model_id, prompt_set)
order by
    evaluated.scorer, densities.prompt_set, densities.model, densities.is_positive,
    densities.projection
""",
    draw=chart,
)
