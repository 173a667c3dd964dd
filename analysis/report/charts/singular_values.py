"""Singular values of the stacked directions beside those of directions that know nothing."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt

from axes.analysis.report.charts.panels import (
    colours,
    faded,
    in_order,
    number,
    panels,
    picked,
    shapes,
    word,
)
from axes.analysis.report.section import Row, Section

SCORERS = ("universal", "shuffled labels", "random direction")

STATEMENT = """
select
    component + 1 as component, replace(scorer, '_', ' ') as scorer, estimate, lower, upper
from evaluations
where study_id = '{study_id}' and metric = 'singular_value'
order by component, scorer
"""


def chart(rows: Sequence[Row]) -> alt.FacetChart:
    """Points side by side for each component, nulls with their span."""
    scorers = in_order(rows, "scorer", SCORERS)
    pick = picked("scorer")
    x = alt.X("component:O", title="component", axis=alt.Axis(labelAngle=0))
    offset = alt.XOffset("scorer:N", sort=scorers)
    color = alt.Color("scorer:N", title=None, scale=colours(scorers))
    spans = (
        alt.Chart()
        .mark_rule(strokeWidth=2)
        .encode(
            x=x,
            xOffset=offset,
            y=alt.Y("lower:Q", title="singular value"),
            y2="upper:Q",
            color=color,
            opacity=faded(pick),
        )
        .add_params(pick)
    )
    points = (
        alt.Chart()
        .mark_point(filled=True, size=70)
        .encode(
            x=x,
            xOffset=offset,
            y=alt.Y("estimate:Q", title="singular value"),
            color=color,
            shape=alt.Shape("scorer:N", title=None, scale=shapes(scorers)),
            opacity=faded(pick),
            tooltip=[
                word("scorer"),
                word("component"),
                number("estimate"),
                number("lower"),
                number("upper"),
            ],
        )
    )
    components = len({row["component"] for row in rows})
    width = max(220, 70 * components)
    return panels(spans, points, by="'stacked aligned directions'", width=width, height=200)


SECTION = Section(
    name="singular_values",
    title="Singular values and their null",
    reading="With k models all alike the first is the root of k and the rest are 0. `random "
    "direction` and `shuffled labels` (one shuffled labelling for all models, carried over by the "
    "same maps) show the mean and the 5th to 95th percentile: a first value within the second span "
    "says that the maps, not the labels, make the directions alike.",
    statement=STATEMENT,
    missing="No singular values of this study are stored: run its `axes study` again.",
    draw=chart,
)
