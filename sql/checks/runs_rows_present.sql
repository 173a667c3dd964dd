-- Finished ingest jobs that have fewer rows stored than they wrote. The run of a repair
-- or a subset lists the rows that it left out: parameters.rows_left_out, by run_id.
with
written as (
    select run_id from stg_activations
    union all
    select run_id from stg_prompt_tokens
    union all
    select run_id from stg_generation_tokens
    union all
    select run_id from stg_token_projections
    union all
    select run_id from stg_projections
),

present as (
    select
        run_id,
        count(*) as row_count
    from written
    group by run_id
),

parameters as (
    select case when json_valid(parameters) then parameters else '{}' end as parameters
    from stg_runs
),

left_out as (
    select
        entry.key as run_id,
        sum(entry.value::bigint) as row_count
    from parameters, json_each(parameters.parameters, '$.rows_left_out') as entry
    group by entry.key
)

select
    runs.run_id,
    runs.rows as written,
    coalesce(present.row_count, 0) as present,
    coalesce(left_out.row_count, 0) as left_out
from stg_runs as runs
left join present using (run_id)
left join left_out using (run_id)
where
    runs.command in ('ingest activations', 'ingest traces', 'activations import')
    and runs.status = 'finished'
    and runs.rows > coalesce(present.row_count, 0) + coalesce(left_out.row_count, 0);
