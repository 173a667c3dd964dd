-- Measurements of interventions along axes, on models or of completions that are not
-- stored.
select
    outcomes.axis_id,
    outcomes.model_id,
    outcomes.generation_id,
    count(*) as outcome_count
from stg_intervention_outcomes as outcomes
left join stg_axes as axes using (axis_id)
left join stg_models as models using (model_id)
left join stg_generations as generations
    on
        outcomes.model = generations.model
        and outcomes.generation_id = generations.generation_id
where
    models.model_id is null
    or (outcomes.axis_id is not null and axes.axis_id is null)
    or (outcomes.generation_id is not null and generations.generation_id is null)
group by all;
