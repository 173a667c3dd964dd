-- Token projections of completions that are not stored. Those whose job generated the
-- completion are left out: it was killed, and no view reads them.
select
    projections.generation_id,
    count(*) as projection_count
from stg_token_projections as projections
anti join stg_generations using (model, generation_id)
left join stg_runs as runs on projections.run_id = runs.run_id
where runs.command is distinct from 'ingest traces'
group by projections.generation_id;
