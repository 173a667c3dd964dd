"""How far the classes are apart: each AUROC with its baselines, curves, distributions, layers."""

from __future__ import annotations

from typing import Any

import altair as alt

from axes.analysis.report.charts.panels import (
    LINES,
    Series,
    classes,
    in_order,
    numbers,
    panels,
    reference,
    words,
)
from axes.analysis.report.charts.theme import NOTE, REFERENCE
from axes.analysis.report.section import Rows, Section

_SCORERS = (
    "native",
    "native cross validated",
    "universal",
    "universal cross validated",
    "leave one out",
    "leave one out cross validated",
    "bag of words",
    "word pairs",
    "tf idf",
    "surface form",
    "prompt length",
    "activation norm",
    "combined",
    "shuffled labels",
    "shuffled labels cross validated",
    "random direction",
    "shuffled alignment",
    "universal unaligned",
)


def area_chart(rows: Rows) -> alt.FacetChart:
    """A panel for each model and prompt set: a point with an interval for each scorer."""
    families = Series("family", in_order(rows, "family"))
    scorers = in_order(rows, "scorer", _SCORERS)
    y = alt.Y("scorer:N", title=None, sort=scorers)
    x: Any = {"title": "AUROC", "axis": alt.Axis(tickCount=5)}
    intervals = families.intervals(x=alt.X("lower:Q", **x), x2="upper:Q", y=y)
    points = families.points(
        mark_size=60,
        x=alt.X("estimate:Q", **x).scale(zero=False),
        y=y,
        tooltip=[
            *words("model", "prompt_set", "scorer"),
            *numbers(estimate="AUROC", lower="lower", upper="upper"),
            *words(is_in_sample="in sample"),
        ],
    )
    chance = reference(x=0.5)
    return panels(chance, intervals, points, width=210, margin=185, height=18 * len(scorers))


AREAS = Section(
    name="areas",
    title="AUROC and baselines",
    explanation="An axis is informative where its interval lies to the right of the uninformative "
    "nulls: `shuffled labels` (directions fitted to shuffled labels, in sample; `cross "
    "validated`: out of fold), `random direction` and `shuffled alignment`, each with its mean "
    "and its 5th to 95th percentile. Baselines need no direction: where they reach the same "
    "AUROC, the axis may detect no more than the surface of the prompts, or (`activation norm`, "
    "`combined`) the size of the activations. `native` is an in-sample score "
    "on the prompts it was fitted on.",
    sql="""
with evaluated as (
    from evaluations
    where
        study_id = $study_id and metric = 'auroc' and fitted_on is null
        and prompt_set is not null and not starts_with(scorer, 'probe_')
),

models as (
    select model, prompt_set
    from evaluated
    where scorer = 'universal'
)

select
    models.model,
    models.prompt_set,
    replace(evaluated.scorer, '_', ' ') as scorer,
    case
        when evaluated.model is null or evaluated.scorer in ('activation_norm', 'combined')
            then 'baseline'
        when
            starts_with(evaluated.scorer, 'shuffled_')
            or evaluated.scorer in ('random_direction', 'universal_unaligned')
            then 'null'
        when ends_with(evaluated.scorer, '_cross_validated') then 'axis, out of fold'
        else 'axis'
    end as family,
    evaluated.estimate,
    evaluated.lower,
    evaluated.upper,
    evaluated.is_in_sample
from models
inner join evaluated
    on models.prompt_set = evaluated.prompt_set
    and (models.model = evaluated.model or evaluated.model is null)
order by models.prompt_set, models.model, evaluated.scorer
""",
    draw=area_chart,
)


def roc_chart(rows: Rows) -> alt.FacetChart:
    """A panel for each model and prompt set, with the AUROC and its interval in words."""
    scorers = Series("scorer", in_order(rows, "scorer"))
    chance = (
        alt.Chart(alt.Data(values=[{"at": 0}, {"at": 1}]))
        .mark_line(style=REFERENCE)
        .encode(x="at:Q", y="at:Q")
    )
    share: Any = {"scale": alt.Scale(domain=[0, 1]), "axis": alt.Axis(tickCount=5)}
    curves = scorers.lines(
        x=alt.X("false_positive_rate:Q", title="false positives", **share),
        y=alt.Y("true_positive_rate:Q", title="true positives", **share),
        order="false_positive_rate:Q",
        tooltip=[
            *words("model", "scorer"),
            *numbers("false_positive_rate", "true_positive_rate"),
        ],
    )
    notes = (
        alt.Chart()
        .transform_filter("datum.auroc !== null")
        .transform_calculate(
            note="datum.scorer + ' ' + format(datum.auroc, '.3f') + ' ('"
            " + format(datum.lower, '.3f') + ' to ' + format(datum.upper, '.3f') + ')'",
            place=f"0.06 + 0.09 * (1 - indexof({scorers.values!r}, datum.scorer))",
        )
        .mark_text(style=NOTE, align="right", baseline="middle")
        .encode(x=alt.datum(1), y="place:Q", text="note:N", opacity=scorers.opacity())
    )
    return panels(chance, curves, notes, height=230)


ROC = Section(
    name="roc",
    title="ROC curves",
    explanation="True positive rate (up) against false positive rate at every threshold. "
    "`native`: the model's direction. `universal`: the shared axis, after the model's alignment. "
    "Each panel states the AUROC with its 95 % DeLong interval. The curves are optimistic on the "
    "prompts that the directions were fitted on.",
    sql="""
select
    v_roc.model,
    v_roc.prompt_set,
    evaluated.scorer,
    round(v_roc.false_positive_rate, 4) as false_positive_rate,
    round(v_roc.true_positive_rate, 4) as true_positive_rate,
    -- The first point of a curve carries its AUROC.
    if(v_roc.threshold is null, evaluated.estimate, null) as auroc,
    if(v_roc.threshold is null, evaluated.lower, null) as lower,
    if(v_roc.threshold is null, evaluated.upper, null) as upper
from v_roc
inner join evaluations as evaluated using (axis_id, model_id, prompt_set)
where
    evaluated.study_id = $study_id and evaluated.metric = 'auroc'
    and evaluated.fitted_on is null and evaluated.scorer in ('native', 'universal')
-- At most 201 points of a curve, the first in each of equal lengths.
qualify row_number() over (
    partition by v_roc.axis_id, v_roc.model_id, v_roc.prompt_set,
        floor(100 * (v_roc.false_positive_rate + v_roc.true_positive_rate))
    order by v_roc.threshold desc nulls first
) = 1
order by v_roc.prompt_set, v_roc.model, evaluated.scorer, v_roc.threshold desc nulls first
""",
    draw=roc_chart,
)


def density_chart(rows: Rows) -> alt.FacetChart:
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


DENSITIES = Section(
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
    draw=density_chart,
)


_DEPTH = alt.X("depth:Q", title="depth (0: first block, 1: last)").scale(domain=[0, 1])


def layer_area_chart(rows: Rows) -> alt.FacetChart:
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


def layer_norm_chart(rows: Rows) -> alt.FacetChart:
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


LAYER_AREAS = Section(
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
    draw=layer_area_chart,
)

LAYER_NORMS = Section(
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
    draw=layer_norm_chart,
)
