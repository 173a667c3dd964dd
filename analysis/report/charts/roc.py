"""ROC curves of each model's direction and of the shared axis."""

from __future__ import annotations

from typing import Any

import altair as alt

from axes.analysis.report.charts.panels import Series, in_order, numbers, panels, words
from axes.analysis.report.charts.theme import NOTE, REFERENCE
from axes.analysis.report.section import Rows, Section

SCORERS = ("native", "universal")


def chart(rows: Rows) -> alt.FacetChart:
    """A panel for each model and prompt set, with the AUROC and its interval in words."""
    scorers = Series("scorer", in_order(rows, "scorer", SCORERS))
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


SECTION = Section(
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
    draw=chart,
)
