-- One row per study, model, prompt set and check.
create view stg_diagnostics as
select
    study_id,
    model,
    model_id,
    prompt_set,
    axis_id,
    check_name,
    place,
    is_fault,
    verdict,
    figures,
    run_id
from read_parquet(
    '${root}/diagnostics/*.parquet',
    hive_partitioning = false
);
