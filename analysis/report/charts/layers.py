"""AUROC of each model's direction and norms of its activations, layer by layer."""

from __future__ import annotations

from typing import Any

import altair as alt

from axes.analysis.report.charts.panels import Series, in_order, numbers, panels, reference, words
from axes.analysis.report.section import Rows, Section

_DEPTH = alt.X("depth:Q", title="depth (0: first block, 1: last)").scale(domain=[0, 1])


def auroc_chart(rows: Rows) -> alt.FacetChart:
    """A panel for each prompt set and fold, a line for each model over the depth."""
    # Without it the legend would be as pale as the bands.
    opaque = alt.Legend(symbolOpacity=1)
    models = Series("model", in_order(rows, "model"), legend=opaque)
    at: Any = {"x": _DEPTH, "y": alt.Y("auroc:Q", title="AUROC").scale(zero=False)}
    band = {"y": alt.Y("lower:Q", title="AUROC"), "y2": "upper:Q"}
    bands = models.bands(opacity=0.15, **(at | band)).transform_filter("datum.lower !== null")
    points = models.points(
        **at,
        size=alt.when("datum.is_of_study").then(alt.value(160)).otherwise(alt.value(22)),
        tooltip=words("model", "layer") + numbers(auroc="AUROC", lower="lower", upper="upper"),
    )
    layers = [reference(y=0.5), models.lines(**at), points]
    if any(row["lower"] is not None for row in rows):
        layers.insert(1, bands)
    by = "datum.prompt_set + ', ' + datum.fold"
    return panels(*layers, by=by, width=330, height=220, columns=2)


def norm_chart(rows: Rows) -> alt.FacetChart:
    """A line for each model over the depth, on a logarithmic scale."""
    models = Series("model", in_order(rows, "model"))
    y = alt.Y("median_norm:Q", title="median norm").scale(type="log", nice=False, padding=12)
    tooltip = [
        *words("model", "layer"),
        *numbers("median_norm", "largest_norm", digits=1),
        *numbers(norm_auroc="AUROC of the norm alone"),
    ]
    lines = models.lines(x=_DEPTH, y=y)
    points = models.points(mark_size=30, x=_DEPTH, y=y, tooltip=tooltip)
    return panels(lines, points, by="datum.prompt_set", width=330, height=220, columns=2)


AREAS = Section(
    name="layer_areas",
    title="Layer profile: AUROC",
    explanation="AUROC of the model's direction at every layer; the large mark is the layer of "
    "the study. `in sample` is measured on the prompts that the direction was fitted on, and is "
    "high in many dimensions; `out of fold`, with its interval, is stored by `axes evaluate MODEL "
    "--prompts {prompts}`. The best layer of a curve is selected on the prompts shown: read it as "
    "an upper bound, not as a result.",
    sql="""
with chosen as (
    select distinct evaluations.model_id, axes.*
    from evaluations
    inner join axes on evaluations.axis_id = axes.axis_id
    where evaluations.study_id = $study_id and evaluations.scorer = 'native'
),

-- The directions at every layer that were fitted like those of the study.
directions as (
    select axes.axis_id, axes.layer, axes.layer = chosen.layer as is_of_study
    from axes
    inner join chosen
        on axes.space_model_id = chosen.space_model_id
        and axes.row_set_hash = chosen.row_set_hash
    where
        axes.kind = 'native' and axes.method = chosen.method and axes.site = chosen.site
        and axes.pooling = chosen.pooling and axes.template = chosen.template
),

evaluated as (
    select
        model, model_id, prompt_set, layer, is_of_study, auroc,
        null::double as lower, null::double as upper,
        if(is_in_sample, 'in sample', 'held out') as fold
    from v_auroc
    inner join directions using (axis_id, layer)
    where auroc is not null
    union all
    select
        model, model_id, prompt_set, layer,
        layer in (select layer from chosen where chosen.model_id = v_layer_tests.model_id),
        auroc, auroc_lower, auroc_upper, 'out of fold'
    from v_layer_tests
    where
        model_id in (select model_id from chosen) and prompt_set = $prompts
        and auroc is not null
    qualify row_number() over (partition by model_id, layer order by study_id) = 1
)

select
    evaluated.model, evaluated.prompt_set, evaluated.fold, evaluated.layer,
    evaluated.layer / greatest(models.layer_count - 1, 1) as depth,
    evaluated.auroc, evaluated.lower, evaluated.upper, evaluated.is_of_study
from evaluated
inner join models on evaluated.model_id = models.model_id
order by evaluated.prompt_set, evaluated.model, evaluated.fold, evaluated.layer
""",
    missing="No direction of another layer is stored: run `axes fit MODEL --prompts {prompts}`.",
    draw=auroc_chart,
)

NORMS = Section(
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
    draw=norm_chart,
)
