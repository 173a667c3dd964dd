"""What happens while a model generates: the classes' projections and their drift, step by step."""

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
    words,
)
from axes.analysis.report.charts.theme import REFERENCE
from axes.analysis.report.section import Rows, Section


def trajectory_chart(rows: Rows) -> alt.FacetChart:
    """A panel for each model and sampling setting, a line with a band for each class."""
    labels = Series("label", classes(rows), legend=LINES)
    x = alt.X("step:Q", title="generated token")
    low = alt.Y("lower:Q", title="projection").scale(zero=False)
    tooltip = [
        *words("label", "step"),
        *numbers("estimate", "lower", "upper"),
        *words("completion_count"),
    ]
    lines = labels.lines(x=x, y=alt.Y("estimate:Q", title="projection"), tooltip=tooltip)
    by = (
        "datum.model + ' on ' + datum.prompt_set + ' | ' + datum.template + ', '"
        " + datum.max_new_tokens + ' tokens, temperature ' + datum.temperature"
    )
    bands = labels.bands(x=x, y=low, y2="upper:Q")
    return panels(bands, lines, by=by, height=170, margin=0, gutter=70, independent=("x", "y"))


TRAJECTORIES = Section(
    name="trajectories",
    title="Projection during generation",
    explanation="Mean projection of each generated token on the universal axis, by the class of "
    "the prompt, with its 95 % interval at each step; only steps that at least five completions "
    "of the class reach. Each panel has its own scale.",
    sql="""
with completions as (
    select generation_id, template, max_new_tokens, temperature
    from generations
    -- Neither steered nor external: texts that the model generated.
    where steering_mode is null and source is null
),

steps as (
    select
        projected.model, projected.prompt_set, completions.template,
        completions.max_new_tokens, completions.temperature, projected.step,
        projected.is_positive,
        case
            when count(distinct projected.label) = 1 then any_value(projected.label)
            when projected.is_positive then 'positive'
            else 'negative'
        end as label,
        count(*) as completion_count,
        avg(projected.projection) as estimate,
        stddev_samp(projected.projection) / sqrt(count(*)) as standard_error
    from v_generation_projections as projected
    inner join completions using (generation_id)
    where projected.axis_id = $universal and projected.step >= 0
        and projected.is_positive is not null
    group by
        projected.model, projected.prompt_set, completions.template,
        completions.max_new_tokens, completions.temperature, projected.step,
        projected.is_positive
    having count(*) >= 5
)

select
    model, prompt_set, template, max_new_tokens, temperature, label, step, estimate,
    estimate - 1.96 * standard_error as lower, estimate + 1.96 * standard_error as upper,
    completion_count, is_positive
from steps
order by model, prompt_set, template, max_new_tokens, temperature, is_positive, step
""",
    missing="No completions are projected on this axis: run `axes ingest traces MODEL --prompts "
    "{prompts}`, then the study again.",
    draw=trajectory_chart,
)


def drift_chart(rows: Rows) -> alt.FacetChart:
    """A panel for each curve and analysis, with the band that holds the whole curve."""
    color = Series("curve", in_order(rows, "curve"), legend=None).color
    x = alt.X("step:Q", title="generated token")
    no_drift = (
        alt.Chart()
        .transform_calculate(nothing="datum.curve == 'running auroc' ? 0.5 : 0")
        .mark_line(style=REFERENCE)
        .encode(x=x, y="nothing:Q")
    )
    low = alt.Y("band_lower:Q", title=None).scale(zero=False)
    bands = alt.Chart().mark_area(opacity=0.2).encode(x=x, y=low, y2="band_upper:Q", color=color)
    tooltip = [
        *words("curve", "step"),
        *numbers("estimate", "band_lower", "band_upper"),
        *words(
            positive_count="completions, positive class",
            negative_count="completions, negative class",
        ),
    ]
    y = alt.Y("estimate:Q", title=None)
    lines = alt.Chart().mark_line().encode(x=x, y=y, color=color, tooltip=tooltip)
    by = (
        "datum.curve + ' of ' + datum.model + ' on ' + datum.prompt_set + ' | '"
        " + datum.template + ', ' + datum.max_new_tokens + ' tokens, by ' + datum.labeler"
    )
    size: Any = {"height": 170, "width": 300, "margin": 0, "gutter": 60}
    return panels(no_drift, bands, lines, by=by, independent=("x", "y"), **size)


DRIFT = Section(
    name="drift",
    title="Drift",
    explanation="`mean difference`: mean projection of the positive class minus that of the "
    "negative class, token by token. `running auroc`: AUROC of the mean projection up to each "
    "token. The band is simultaneous: with 95 % confidence it contains the complete curve. The "
    'controls decide whether a difference is drift: see the claims above and `axes sql "from '
    'v_drift"`.',
    sql="""
with latest as (
    select arg_max(analyses.drift_id, runs.started_at) as drift_id
    from v_drift as analyses
    inner join runs on analyses.run_id = runs.run_id
    where analyses.axis_id = $universal
    group by
        analyses.model_id, analyses.prompt_set, analyses.labeler, analyses.template,
        analyses.max_new_tokens
)

select
    analyses.model, analyses.prompt_set, analyses.template, analyses.max_new_tokens,
    coalesce(analyses.labeler, 'label of the prompt') as labeler,
    replace(curves.curve, '_', ' ') as curve, curves.step, curves.estimate,
    curves.band_lower, curves.band_upper, curves.positive_count, curves.negative_count
from v_drift_curve as curves
inner join latest on curves.drift_id = latest.drift_id
inner join v_drift as analyses on curves.drift_id = analyses.drift_id
where curves.control = 'none' and curves.estimate is not null
order by
    curve, analyses.model, analyses.prompt_set, analyses.template, analyses.max_new_tokens,
    labeler, curves.step
""",
    missing="No drift analysis of this axis is stored: run `axes drift --axis {axis}`.",
    draw=drift_chart,
)
