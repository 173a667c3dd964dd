"""Every AUROC of a study with its interval, beside what reaches how much without knowing."""

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
from axes.analysis.report.charts.theme import REFERENCE
from axes.analysis.report.section import Row, Section

FAMILIES = ("axis", "axis, out of fold", "no model", "knows nothing")

_SCORERS = (
    "native",
    "native cross validated",
    "universal",
    "universal cross validated",
    "leave one out",
    "leave one out cross validated",
    "bag of words",
    "prompt length",
    "shuffled labels",
    "shuffled labels cross validated",
    "random direction",
    "shuffled alignment",
    "universal unaligned",
)

STATEMENT = """
with judged as (
    from evaluations
    where
        study_id = '{study_id}' and metric = 'auroc' and fitted_on is null
        and prompt_set is not null and not starts_with(scorer, 'probe_')
),

models as (
    select model, prompt_set
    from judged
    where scorer = 'universal'
)

select
    models.model,
    models.prompt_set,
    replace(judged.scorer, '_', ' ') as scorer,
    case
        when judged.model is null then 'no model'
        when
            starts_with(judged.scorer, 'shuffled_')
            or judged.scorer in ('random_direction', 'universal_unaligned')
            then 'knows nothing'
        when ends_with(judged.scorer, '_cross_validated') then 'axis, out of fold'
        else 'axis'
    end as family,
    judged.estimate,
    judged.lower,
    judged.upper,
    judged.is_in_sample
from models
inner join judged
    on models.prompt_set = judged.prompt_set
    and (models.model = judged.model or judged.model is null)
order by models.prompt_set, models.model, judged.scorer
"""


def chart(rows: Sequence[Row]) -> alt.FacetChart:
    """A panel for each model and prompt set: a line with an interval for each scorer."""
    families = in_order(rows, "family", FAMILIES)
    pick = picked("family")
    y = alt.Y("scorer:N", title=None, sort=in_order(rows, "scorer", _SCORERS))
    x = alt.X("estimate:Q", title="AUROC", axis=alt.Axis(tickCount=5)).scale(zero=False)
    color = alt.Color("family:N", title=None, scale=colours(families))
    intervals = (
        alt.Chart()
        .mark_rule(strokeWidth=2)
        .encode(
            x=alt.X("lower:Q", title="AUROC", axis=alt.Axis(tickCount=5)),
            x2="upper:Q",
            y=y,
            color=color,
            opacity=faded(pick),
        )
        .add_params(pick)
    )
    points = (
        alt.Chart()
        .mark_point(filled=True, size=60)
        .encode(
            x=x,
            y=y,
            color=color,
            shape=alt.Shape("family:N", title=None, scale=shapes(families)),
            opacity=faded(pick),
            tooltip=[
                word("model"),
                word("prompt_set"),
                word("scorer"),
                number("estimate", "AUROC"),
                number("lower"),
                number("upper"),
                word("is_in_sample", "in sample"),
            ],
        )
    )
    chance = alt.Chart().mark_rule(style=REFERENCE).encode(x=alt.datum(0.5))
    scorer_count = len({row["scorer"] for row in rows})
    return panels(
        chance,
        intervals,
        points,
        by="datum.model + ' on ' + datum.prompt_set",
        width=210,
        margin=185,
        height=18 * scorer_count,
    )


SECTION = Section(
    name="areas",
    title="AUROC beside baselines",
    reading="An axis tells something where its interval is right of what knows nothing: `shuffled "
    "labels` (directions fitted on shuffled labels, in sample; `cross validated`: out of fold), "
    "`random direction`, `shuffled alignment`, of which the mean and the 5th to 95th percentile "
    "are shown. `bag of words` and `prompt length` need no model: where they reach as much, an "
    "axis may see no more than words. `native` is in sample on the prompts it was fitted on.",
    statement=STATEMENT,
    missing="No figures of this study are stored: run its `axes study` again.",
    draw=chart,
)
