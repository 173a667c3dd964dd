-- Slopes over all strengths along the axes, in the latest experiment of each model.
-- The shift of activations is left out: any direction moves them.
with
latest as (
    select
        model_id,
        arg_max(experiment_id, judged_at) as experiment_id
    from v_interventions
    group by model_id
)

select
    v_interventions.model,
    v_interventions.axis_kind,
    v_interventions.pull_back,
    v_interventions.layers,
    v_interventions.metric,
    v_interventions.prompts_class,
    v_interventions.estimate,
    v_interventions.lower,
    v_interventions.upper,
    v_interventions.random_lower,
    v_interventions.random_upper,
    v_interventions.p_value,
    v_interventions.prompt_count,
    v_interventions.random_count,
    v_interventions.verdict
from v_interventions
inner join latest on v_interventions.experiment_id = latest.experiment_id
where
    v_interventions.role = 'axis'
    and v_interventions.strength is null
    and v_interventions.metric != 'projection_shift'
order by all;
