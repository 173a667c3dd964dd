-- One row per drift analysis, metric, control and step.
create view stg_drift_figures as
select
    drift_id,
    model,
    model_id,
    axis_id,
    layer,
    prompt_set,
    labeler,
    metric,
    control,
    step,
    estimate,
    lower,
    upper,
    band_lower,
    band_upper,
    p_value,
    positive_count,
    negative_count,
    parameters,
    run_id
from read_parquet(
    '${root}/drift_figures/*.parquet',
    hive_partitioning = false
);
