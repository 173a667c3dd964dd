-- One row per study, model, layer, prompt set, scorer, what it was fitted and judged
-- on, and metric.
create view stg_evaluations as
select
    study_id,
    model,
    model_id,
    prompt_set,
    scorer,
    fitted_on,
    judged_on,
    metric,
    component,
    axis_id,
    layer,
    estimate,
    lower,
    upper,
    p_value,
    p_value_adjusted,
    positive_count,
    negative_count,
    is_in_sample,
    parameters,
    run_id
from read_parquet(
    '${root}/evaluations/*.parquet',
    hive_partitioning = false
);
