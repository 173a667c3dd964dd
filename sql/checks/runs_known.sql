-- Activations written by a job that has no row in runs.
select
    activations.run_id,
    count(*) as row_count
from (
    select
        run_id,
        prompt_id
    from stg_activations
) as activations
left join stg_runs as runs on activations.run_id = runs.run_id
where runs.run_id is null
group by activations.run_id;
