"""The projection during generation, class by class."""

from __future__ import annotations

import altair as alt

from axes.analysis.report.charts.panels import LINES, Series, classes, numbers, panels, words
from axes.analysis.report.section import Rows, Section


def chart(rows: Rows) -> alt.FacetChart:
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


SECTION = Section(
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
    draw=chart,
)
