-- One row per completion.
create view stg_generations as
select
    model,
    generation_id,
    model_id,
    prompt_id,
    template,
    text,
    source,
    token_count,
    prompt_token_count,
    finish_reason,
    max_new_tokens,
    temperature,
    top_p,
    seed,
    sample,
    stop_strings,
    axis_id,
    strength,
    steering_mode,
    steering_layers,
    intervention_id,
    run_id
from read_parquet(
    '${root}/generations/*/*.parquet',
    hive_partitioning = true,
    hive_types = { 'model': varchar }
);
