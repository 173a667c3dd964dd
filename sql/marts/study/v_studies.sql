-- One row per study, the last one first. `latest_study()` is the id of the first row.
--
-- label: the group in the names of its axes
-- prompts: the set that its directions were fitted on
-- align: the set that its alignments were fitted on
-- models: its models, by name
-- started_at: start of the last job that evaluated it
-- direction: how the two classes gave a direction
-- alignment: the map from each model into the reference
-- universal: how aligned directions became one axis
-- ridge_lambda: the penalty that was asked for; null if it was chosen
-- lambda_policy: what chose it
-- layer_fraction: depth of its layers
-- site: where in a block vectors were read
-- pooling: over which tokens
-- template: of the prompts
create view v_studies as
select
    evaluations.study_id,
    any_value(evaluations.parameters ->> '$.label') as label,
    any_value(evaluations.parameters ->> '$.prompts') as prompts,
    any_value(evaluations.parameters ->> '$.align') as align,
    string_agg(distinct evaluations.model, ', ' order by evaluations.model) as models,
    max(runs.started_at) as started_at,
    any_value(evaluations.parameters ->> '$.direction') as direction,
    any_value(evaluations.parameters ->> '$.alignment') as alignment,
    any_value(evaluations.parameters ->> '$.universal') as universal,
    any_value((evaluations.parameters ->> '$.ridge_lambda')::double) as ridge_lambda,
    any_value(evaluations.parameters ->> '$.lambda_policy') as lambda_policy,
    any_value((evaluations.parameters ->> '$.layer_fraction')::double)
        as layer_fraction,
    any_value(evaluations.parameters ->> '$.site') as site,
    any_value(evaluations.parameters ->> '$.pooling') as pooling,
    any_value(evaluations.parameters ->> '$.template') as template
from stg_evaluations as evaluations
inner join stg_runs as runs using (run_id)
where evaluations.fitted_on is null
group by evaluations.study_id
order by started_at desc, evaluations.study_id asc;
