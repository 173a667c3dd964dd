-- Token projections of axes or completions that are not stored. Those without a
-- completion whose job generated it are left out: it was killed, and no view reads
-- them.
select
    projections.axis_id,
    projections.generation_id,
    count(*) as projection_count
from stg_token_projections as projections
left join stg_axes as axes using (axis_id)
left join stg_generations as generations using (model, generation_id)
left join stg_runs as runs on projections.run_id = runs.run_id
where
    axes.axis_id is null
    or (
        generations.generation_id is null
        and runs.command is distinct from 'ingest traces'
    )
group by projections.axis_id, projections.generation_id;
