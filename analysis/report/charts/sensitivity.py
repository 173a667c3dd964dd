"""The AUROC of the shared axis over the range of each setting of the study."""

from __future__ import annotations

import altair as alt

from axes.analysis.report.charts.panels import Series, numbers, panels, words
from axes.analysis.report.charts.theme import NOTE
from axes.analysis.report.section import Rows, Section

RANGE_CLASSES = ("range below 0.05", "range of 0.05 or more")


def chart(rows: Rows) -> alt.FacetChart:
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
    color = Series("range_class", RANGE_CLASSES).color
    ranges = alt.Chart().mark_bar(height=10)
    ranges = ranges.encode(
        x=x.scale(zero=False), x2="greatest:Q", y=y, color=color, tooltip=tooltip
    )
    own = alt.Chart().mark_tick(thickness=3, height=18, style=NOTE).encode(x="own:Q", y=y)
    return panels(ranges, own, height=120, margin=110)


SECTION = Section(
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
    model, prompt_set, replace(setting, '_', ' ') as setting, own, least, greatest, spread,
    value_at_least, value_at_greatest, variation_count,
    cosine_least, cosine_greatest,
    if(is_fragile, 'range of 0.05 or more', 'range below 0.05') as range_class
from v_sensitivity
where study_id = $study_id and figure = 'universal'
order by prompt_set, model, setting
""",
    missing="The sensitivity is not measured: run `axes study sensitivity {study_id}`.",
    draw=chart,
)
