-- One row per drift analysis and completion.
create view stg_trajectories as
select
    model,
    drift_id,
    model_id,
    axis_id,
    layer,
    generation_id,
    prompt_id,
    is_positive,
    step_count,
    prompt_projection,
    mean_projection,
    slope,
    change_step,
    change_size,
    change_p_value,
    area_above,
    first_crossing,
    decided_step,
    event_step,
    run_id
from read_parquet(
    '${root}/trajectories/*/*.parquet',
    hive_partitioning = true,
    hive_types = { 'model': varchar }
);
