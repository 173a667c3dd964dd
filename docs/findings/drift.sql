-- The latest analysis of each model on a universal axis. The classes are the prompts'
-- labels.
with
latest as (
    select
        figures.model_id,
        arg_max(figures.drift_id, runs.started_at) as drift_id
    from drift_figures as figures
    inner join runs on figures.run_id = runs.run_id
    inner join axes on figures.axis_id = axes.axis_id
    where axes.kind = 'universal' and figures.labeler is null
    group by figures.model_id
)

select
    v_drift.model,
    v_drift.positive_slope,
    v_drift.positive_slope_lower,
    v_drift.positive_slope_upper,
    v_drift.negative_slope,
    v_drift.slope_difference,
    v_drift.lower,
    v_drift.upper,
    v_drift.p_value,
    v_drift.controls_held,
    v_drift.controls_failed,
    v_drift.final_auroc,
    v_drift.final_auroc_lower,
    v_drift.final_auroc_upper,
    v_drift.positive_count,
    v_drift.negative_count,
    v_drift.is_drift,
    v_drift.is_controlled,
    v_drift.drift_id
from v_drift
inner join latest on v_drift.drift_id = latest.drift_id
order by v_drift.model;
