-- One row per experiment, axis, layers, strength, metric and class of prompts.
create view stg_interventions as
select
    experiment_id,
    model,
    model_id,
    axis_id,
    role,
    layers,
    mode,
    strength,
    metric,
    prompt_set,
    is_positive,
    estimate,
    lower,
    upper,
    unsteered,
    prompt_count,
    random_count,
    random_lower,
    random_upper,
    p_value,
    verdict,
    parameters,
    run_id
from read_parquet(
    '${root}/interventions/*.parquet',
    hive_partitioning = false
);
