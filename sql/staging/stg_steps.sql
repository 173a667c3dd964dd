-- One row per step of a study that ended in figures.
create view stg_steps as
select
    step_id,
    step,
    model,
    model_id,
    prompt_set,
    inputs,
    figures,
    run_id
from read_parquet(
    '${root}/steps/*.parquet',
    hive_partitioning = false
);
