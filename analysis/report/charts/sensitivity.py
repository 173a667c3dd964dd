"""How far the AUROC of the shared axis moves with each choice of the study."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt

from axes.analysis.report.charts.panels import colours, number, panels, word
from axes.analysis.report.charts.theme import NOTE
from axes.analysis.report.section import Row, Section

MOVEMENTS = ("moves by less", "moves by 0.05 or more")

STATEMENT = """
select
    model, prompt_set, replace(setting, '_', ' ') as setting, own, least, greatest, spread,
    value_at_least, value_at_greatest, variation_count,
    cosine_least, cosine_greatest,
    if(is_fragile, 'moves by 0.05 or more', 'moves by less') as movement
from v_sensitivity
where study_id = '{study_id}' and figure = 'universal'
order by prompt_set, model, setting
"""


def chart(rows: Sequence[Row]) -> alt.FacetChart:
    """A panel for each model and prompt set: a span for each choice, a mark at the study's own."""
    y = alt.Y("setting:N", title=None)
    spans = (
        alt.Chart()
        .mark_bar(height=10)
        .encode(
            x=alt.X(
                "least:Q", title="AUROC of the universal axis", axis=alt.Axis(tickCount=5)
            ).scale(zero=False),
            x2="greatest:Q",
            y=y,
            color=alt.Color("movement:N", title=None, scale=colours(MOVEMENTS)),
            tooltip=[
                word("setting"),
                number("own"),
                number("least"),
                word("value_at_least"),
                number("greatest"),
                word("value_at_greatest"),
                number("cosine_least"),
                number("cosine_greatest"),
            ],
        )
    )
    own = alt.Chart().mark_tick(thickness=3, height=18, style=NOTE).encode(x="own:Q", y=y)
    return panels(spans, own, by="datum.model + ' on ' + datum.prompt_set", height=120, margin=110)


SECTION = Section(
    name="sensitivity",
    title="How far the figures move",
    reading="Each choice that was made before any result, varied with all else as it is; the tick "
    "is the study's own AUROC. `reference`: every model in turn. `ridge lambda`: a factor of 0.001 "
    "to 1,000. `layer fraction`: the depth. `align rows`: the alignment rows. `prompts`: "
    "directions of twenty random halves, judged on the other half. A figure that moves by "
    "0.05 or more is a statement about the choice.",
    statement=STATEMENT,
    missing="How far the figures move was not measured: run `axes study sensitivity {study_id}`.",
    draw=chart,
)
