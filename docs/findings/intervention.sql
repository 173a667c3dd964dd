-- Whole sweeps of strengths along the axis, in the last experiment of each model.
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
    v_interventions.axis_name,
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
where v_interventions.role = 'axis' and v_interventions.strength is null
order by all;
