"""How far the models agree: cosines, singular values, sensitivity, and transfer of thresholds."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt

from axes.analysis.report.charts.panels import Series, in_order, numbers, panels, words
from axes.analysis.report.charts.theme import NOTE, SCHEME
from axes.analysis.report.section import Rows, Section


def cosine_chart(rows: Rows) -> alt.FacetChart:
    """A square for each pair, with its cosine in it."""
    return _heat_map(
        rows,
        x="member",
        y="other",
        value="cosine",
        domain=(-1.0, 1.0),
        by="'aligned directions'",
        tooltip=[*words("member", "other"), *numbers("cosine", digits=4)],
    )


COSINES = Section(
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
    draw=cosine_chart,
)


SCORERS = ("universal", "shuffled labels", "random direction")


def singular_value_chart(rows: Rows) -> alt.FacetChart:
    """Points side by side for each component, nulls with their interval."""
    scorers = Series("scorer", in_order(rows, "scorer", SCORERS))
    at = {
        "x": alt.X("component:O", title="component", axis=alt.Axis(labelAngle=0)),
        "xOffset": alt.XOffset("scorer:N", sort=list(scorers.values)),
    }
    intervals = scorers.intervals(**at, y=alt.Y("lower:Q", title="singular value"), y2="upper:Q")
    points = scorers.points(
        mark_size=70,
        **at,
        y=alt.Y("estimate:Q", title="singular value"),
        tooltip=[*words("scorer", "component"), *numbers("estimate", "lower", "upper")],
    )
    width = max(220, 70 * len({row["component"] for row in rows}))
    return panels(intervals, points, by="'stacked aligned directions'", width=width)


SINGULAR_VALUES = Section(
    name="singular_values",
    title="Singular values and nulls",
    explanation="If all k models are alike, the first singular value is sqrt(k) and the others "
    "are 0. `random direction` and `shuffled labels` (one shuffled labelling for all models, "
    "mapped by the same alignments) show the mean and the 5th to 95th percentile. A first value "
    "within the interval of `shuffled labels` means that the alignments, not the labels, make the "
    "directions alike.",
    sql="""
select
    component + 1 as component, replace(scorer, '_', ' ') as scorer, estimate, lower, upper
from evaluations
where study_id = $study_id and metric = 'singular_value'
order by component, scorer
""",
    draw=singular_value_chart,
)


RANGE_CLASSES = ("range below 0.05", "range of 0.05 or more")


def sensitivity_chart(rows: Rows) -> alt.FacetChart:
    """A panel for each model and prompt set: a range for each setting, a tick at the study's."""
    y = alt.Y("setting:N", title=None)
    x = alt.X("metric_min:Q", title="AUROC of the universal axis", axis=alt.Axis(tickCount=5))
    tooltip = [
        *words("setting"),
        *numbers("own", "metric_min"),
        *words("value_at_min"),
        *numbers("metric_max"),
        *words("value_at_max"),
        *numbers("cosine_min", "cosine_max"),
    ]
    color = Series("range_class", RANGE_CLASSES).color
    ranges = alt.Chart().mark_bar(height=10)
    ranges = ranges.encode(
        x=x.scale(zero=False), x2="metric_max:Q", y=y, color=color, tooltip=tooltip
    )
    own = alt.Chart().mark_tick(thickness=3, height=18, style=NOTE).encode(x="own:Q", y=y)
    return panels(ranges, own, height=120, margin=110)


SENSITIVITY = Section(
    name="sensitivity",
    title="Sensitivity analysis",
    explanation="Range of the universal AUROC when one setting is changed and all others stay as "
    "in the study; the tick is the study's AUROC. `reference`: every model in turn. `ridge "
    "lambda`: 0.001 to 1,000 times each model's lambda. `layer fraction`: the depth. `align "
    "rows`: the number of alignment rows. `prompts`: directions of twenty random halves of the "
    "pairs, evaluated on the other half. A range of 0.05 or more means that the result depends on "
    "the setting.",
    sql="""
select
    model, prompt_set, replace(setting, '_', ' ') as setting, own, metric_min, metric_max, spread,
    value_at_min, value_at_max, variation_count,
    cosine_min, cosine_max,
    if(is_fragile, 'range of 0.05 or more', 'range below 0.05') as range_class
from v_sensitivity
where study_id = $study_id and metric = 'universal'
order by prompt_set, model, setting
""",
    missing="The sensitivity is not measured: run `axes study sensitivity {study_id}`.",
    draw=sensitivity_chart,
)


def threshold_chart(rows: Rows) -> alt.FacetChart:
    """A square for each pair of models; the model's threshold on the diagonal."""
    return _heat_map(
        rows,
        x="judged_on",
        y="fitted_on",
        value="balanced_accuracy",
        domain=(0.5, 1.0),
        by="datum.method + ' on ' + datum.prompt_set",
        tooltip=[
            *words(fitted_on="threshold from", judged_on="applied to"),
            *numbers("balanced_accuracy", "lower", "upper"),
            *numbers(
                accuracy_loss="loss against the model's threshold", accuracy_loss_p="p (Holm)"
            ),
            *numbers("false_positive_rate", "false_positive_shift"),
        ],
        x_title="applied to",
        y_title="threshold from",
    )


THRESHOLDS = Section(
    name="thresholds",
    title="Threshold transfer",
    explanation="Balanced accuracy on prompts that no threshold was chosen on. `uncalibrated`: "
    "raw projections; the others: after the calibration of both models. A row far below the "
    "diagonal of its columns is a threshold that does not transfer.",
    sql="""
with latest as (
    select arg_max(evaluations.study_id, runs.started_at) as study_id
    from evaluations
    inner join runs on evaluations.run_id = runs.run_id
    where evaluations.axis_id = $universal and evaluations.metric = 'accuracy_loss'
    group by evaluations.prompt_set
)

select
    replace(method, '_', ' ') as method, prompt_set, fitted_on, model as judged_on,
    balanced_accuracy, balanced_accuracy_lower as lower, balanced_accuracy_upper as upper,
    accuracy_loss, accuracy_loss_lower, accuracy_loss_upper, accuracy_loss_p,
    false_positive_rate, false_positive_shift, is_own
from v_threshold_transfer
where axis_id = $universal and study_id in (select study_id from latest)
order by method != 'uncalibrated', method, prompt_set, fitted_on, model
""",
    missing="No threshold transfer on this axis is stored: run `axes transfer {axis} --prompts "
    "{prompts}`.",
    draw=threshold_chart,
)


_SIDE = 56


def _heat_map(
    rows: Rows,
    *,
    x: str,
    y: str,
    value: str,
    domain: tuple[float, float],
    by: str,
    tooltip: Sequence[alt.Tooltip],
    x_title: str | None = None,
    y_title: str | None = None,
) -> alt.FacetChart:
    """A map for each value of the Vega expression `by`; colours run over `domain`."""
    columns = list(dict.fromkeys(row[x] for row in rows))
    lines = in_order(rows, y, columns)
    at = {
        "x": alt.X(f"{x}:N", title=x_title, sort=columns, axis=alt.Axis(labelAngle=35)),
        "y": alt.Y(f"{y}:N", title=y_title, sort=lines),
    }
    scale = alt.Scale(scheme=SCHEME, domain=domain, clamp=True)
    colour = alt.Color(f"{value}:Q", title=value.replace("_", " "), scale=scale)
    squares = alt.Chart().mark_rect().encode(**at, color=colour, tooltip=list(tooltip))
    # Cividis runs from dark blue to light yellow in either theme.
    is_light = alt.when(f"datum.{value} > {sum(domain) / 2}")
    ink = is_light.then(alt.value("#000000")).otherwise(alt.value("#ffffff"))
    text = alt.Text(f"{value}:Q", format=".2f")
    figures = alt.Chart().mark_text().encode(**at, text=text, color=ink)
    return panels(
        squares,
        figures,
        by=by,
        width=_SIDE * len(columns),
        height=_SIDE * len(lines) * 2 // 3,
        columns=2,
        margin=150,
        is_stretched=False,
    )
