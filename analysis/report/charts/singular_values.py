"""Singular values of the stacked directions, next to their nulls."""

from __future__ import annotations

import altair as alt

from axes.analysis.report.charts.panels import Series, in_order, numbers, panels, words
from axes.analysis.report.section import Rows, Section

SCORERS = ("universal", "shuffled labels", "random direction")


def chart(rows: Rows) -> alt.FacetChart:
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


SECTION = Section(
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
    draw=chart,
)
