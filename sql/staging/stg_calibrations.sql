-- One row per model, axis, calibration rows, method and target.
create view stg_calibrations as
select
    calibration_id,
    model,
    model_id,
    axis_id,
    method,
    parameters,
    target,
    threshold,
    prompt_set,
    prompt_ids,
    row_set_hash,
    positive_count,
    negative_count,
    run_id
from read_parquet(
    '${root}/calibrations/*.parquet',
    hive_partitioning = false
);
