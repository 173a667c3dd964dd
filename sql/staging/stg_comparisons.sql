-- One row per scoring, model and metric.
create view stg_comparisons as
select
    scoring_id,
    model,
    model_id,
    prompt_set,
    axis_id,
    metric,
    estimate,
    lower,
    upper,
    warning,
    prompt_count,
    parameters,
    run_id
from read_parquet(
    '${root}/comparisons/*.parquet',
    hive_partitioning = false
);
