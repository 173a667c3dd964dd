-- One row per study, choice varied, its value, model, prompt set and figure.
create view stg_variations as
select
    study_id,
    setting,
    value,
    number,
    is_own,
    model,
    model_id,
    layer,
    ridge_lambda,
    prompt_set,
    figure,
    estimate,
    is_in_sample,
    run_id
from read_parquet(
    '${root}/variations/*.parquet',
    hive_partitioning = false
);
