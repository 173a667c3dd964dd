-- One row per study, the last one first. `latest_study()` is the id of the first row.
--
-- label: the group in the names of its axes
-- prompts: the set that its directions were fitted on
-- align: the set that its alignments were fitted on
-- models: its models, by name
-- started_at: start of the last job that evaluated it
create view v_studies as
select
    evaluations.study_id,
    any_value(evaluations.parameters ->> '$.label') as label,
    any_value(evaluations.parameters ->> '$.prompts') as prompts,
    any_value(evaluations.parameters ->> '$.align') as align,
    string_agg(distinct evaluations.model, ', ' order by evaluations.model) as models,
    max(runs.started_at) as started_at
from stg_evaluations as evaluations
inner join stg_runs as runs using (run_id)
where evaluations.fitted_on is null
group by evaluations.study_id
order by started_at desc, evaluations.study_id asc;
