-- One row per scoring, model and prompt.
create view stg_scored_answers as
select
    scoring_id,
    model,
    model_id,
    prompt_set,
    prompt_id,
    axis_id,
    generation_ids,
    prompt_projection,
    answer_projection,
    prompt_probability,
    answer_probability,
    outcome,
    refusal,
    token_count,
    is_calibration,
    is_in_sample,
    run_id
from read_parquet(
    '${root}/scored_answers/*.parquet',
    hive_partitioning = false
);
