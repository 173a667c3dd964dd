-- One row per job: what it did and what it cost, in the order of starting.
--
-- model: the model it ran, where it ran one
-- skipped_count: prompts left out
-- seconds: from start to end; null while it runs, or where it was killed
-- stage_seconds: seconds of each stage of an ingest of activations
-- rows_per_second: rows / seconds
-- total_seconds: seconds of all jobs started until then
-- total_tokens: tokens of all jobs started until then
create view v_runs as
with
timed as (
    select
        *,
        epoch(finished_at) - epoch(started_at) as seconds
    from stg_runs
)

select
    run_id,
    command,
    parameters ->> '$.model' as model,
    parameters,
    status,
    message,
    code_version,
    device,
    seed,
    rows,
    tokens,
    len(skipped) as skipped_count,
    seconds,
    json_transform(
        parameters -> '$.stage_seconds',
        '{"plan": "DOUBLE", "tokenise": "DOUBLE", "load": "DOUBLE", "forward": "DOUBLE",
        "pool": "DOUBLE", "copy": "DOUBLE", "encode": "DOUBLE", "write": "DOUBLE"}'
    ) as stage_seconds,
    rows / nullif(seconds, 0) as rows_per_second,
    tokens_per_second,
    sum(seconds) over (order by started_at, run_id) as total_seconds,
    (sum(tokens) over (order by started_at, run_id))::bigint as total_tokens,
    started_at,
    finished_at
from timed;
