"""Transfer of thresholds between models: the matrix of `axes transfer`."""

from __future__ import annotations

import altair as alt

from axes.analysis.report.charts.heat import heat_map
from axes.analysis.report.charts.panels import numbers, words
from axes.analysis.report.section import Rows, Section


def chart(rows: Rows) -> alt.FacetChart:
    """A square for each pair of models; the model's threshold on the diagonal."""
    return heat_map(
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


SECTION = Section(
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
    draw=chart,
)
