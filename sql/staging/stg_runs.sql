-- One row per job.
create view stg_runs as
select
    run_id,
    command,
    parameters,
    status,
    message,
    code_version,
    library_versions,
    device,
    seed,
    rows,
    tokens,
    tokens_per_second,
    skipped,
    started_at,
    finished_at
from read_parquet(
    '${root}/runs/*.parquet',
    hive_partitioning = false
);
