"""Norms of activations, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt

from axes.analysis.report.charts.panels import Series, in_order, numbers, panels, words
from axes.analysis.report.section import Row, Section


def chart(rows: Sequence[Row]) -> alt.FacetChart:
    """A line for each model over the depth, on a logarithmic scale."""
    models = Series("model", in_order(rows, "model"))
    at = {
        "x": alt.X("depth:Q", title="depth (0: first block, 1: last)").scale(domain=[0, 1]),
        "y": alt.Y("median_norm:Q", title="median norm").scale(type="log", nice=False, padding=12),
    }
    tooltip = [
        *words("model", "layer"),
        *numbers("median_norm", "largest_norm", digits=1),
        *numbers(norm_auroc="AUROC of the norm alone"),
    ]
    points = models.points(mark_size=30, **at, tooltip=tooltip)
    return panels(
        models.lines(**at), points, by="datum.prompt_set", width=330, height=220, columns=2
    )


SECTION = Section(
    name="layer_norms",
    title="Layer profile: norms",
    explanation="Median norm of the activations of `{prompts}` at every layer. The same ridge "
    "lambda regularises a model with small activations more, so do not compare lambdas between "
    "models. The tooltip has the AUROC of the norm alone.",
    sql="""
with chosen as (
    select distinct
        evaluations.model_id, axes.site, axes.pooling, axes.template, axes.prompt_set
    from evaluations
    inner join axes on evaluations.axis_id = axes.axis_id
    where evaluations.study_id = $study_id and evaluations.scorer = 'native'
)

select
    norms.model, norms.prompt_set, norms.layer, norms.depth_fraction as depth,
    norms.median_norm, norms.mean_norm, norms.largest_norm, norms.norm_auroc, norms.row_count
from v_layer_norms as norms
inner join chosen
    using (model_id, site, pooling, template, prompt_set)
order by norms.model, norms.layer
""",
    missing="No activations of these models are stored: run `axes ingest activations MODEL "
    "--prompts {prompts}`.",
    draw=chart,
)
