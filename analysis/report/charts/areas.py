"""Every AUROC of a study with its interval, next to baselines and nulls."""

from __future__ import annotations

from typing import Any

import altair as alt

from axes.analysis.report.charts.panels import Series, in_order, numbers, panels, reference, words
from axes.analysis.report.section import Rows, Section

FAMILIES = ("axis", "axis, out of fold", "no model", "null")

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


def chart(rows: Rows) -> alt.FacetChart:
    """A panel for each model and prompt set: a point with an interval for each scorer."""
    families = Series("family", in_order(rows, "family", FAMILIES))
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


SECTION = Section(
    name="areas",
    title="AUROC and baselines",
    explanation="An axis is informative where its interval lies to the right of the uninformative "
    "nulls: `shuffled labels` (directions fitted to shuffled labels, in sample; `cross "
    "validated`: out of fold), `random direction` and `shuffled alignment`, each with its mean "
    "and its 5th to 95th percentile. `bag of words` and `prompt length` need no model: where they "
    "reach the same AUROC, the axis may detect no more than words. `native` is an in-sample score "
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
        when evaluated.model is null then 'no model'
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
    draw=chart,
)
