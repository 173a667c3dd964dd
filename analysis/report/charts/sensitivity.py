"""How far the AUROC of the shared axis moves with each choice of the study."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt

from axes.analysis.report.charts.panels import Series, numbers, panels, words
from axes.analysis.report.charts.theme import NOTE
from axes.analysis.report.section import Row, Section

MOVEMENTS = ("moves by less", "moves by 0.05 or more")


def chart(rows: Sequence[Row]) -> alt.FacetChart:
    """A panel for each model and prompt set: a range for each setting, a tick at the study's."""
    y = alt.Y("setting:N", title=None)
    x = alt.X("least:Q", title="AUROC of the universal axis", axis=alt.Axis(tickCount=5))
    tooltip = [
        *words("setting"),
        *numbers("own", "least"),
        *words("value_at_least"),
        *numbers("greatest"),
        *words("value_at_greatest"),
        *numbers("cosine_least", "cosine_greatest"),
    ]
    color = Series("movement", MOVEMENTS).color
    ranges = alt.Chart().mark_bar(height=10)
    ranges = ranges.encode(
        x=x.scale(zero=False), x2="greatest:Q", y=y, color=color, tooltip=tooltip
    )
    own = alt.Chart().mark_tick(thickness=3, height=18, style=NOTE).encode(x="own:Q", y=y)
    return panels(ranges, own, height=120, margin=110)


SECTION = Section(
    name="sensitivity",
    title="How far the figures move",
    explanation="Each choice that was made before any result, varied with all else as it is; the tick "
    "is the study's own AUROC. `reference`: every model in turn. `ridge lambda`: a factor of 0.001 "
    "to 1,000. `layer fraction`: the depth. `align rows`: the alignment rows. `prompts`: "
    "directions of twenty random halves, judged on the other half. A figure that moves by "
    "0.05 or more is a statement about the choice.",
    sql="""
select
    model, prompt_set, replace(setting, '_', ' ') as setting, own, least, greatest, spread,
    value_at_least, value_at_greatest, variation_count,
    cosine_least, cosine_greatest,
    if(is_fragile, 'moves by 0.05 or more', 'moves by less') as movement
from v_sensitivity
where study_id = $study_id and figure = 'universal'
order by prompt_set, model, setting
""",
    missing="How far the figures move was not measured: run `axes study sensitivity {study_id}`.",
    draw=chart,
)
