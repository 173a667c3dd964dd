-- One row per completion, step and layer.
create view stg_generation_tokens as
select
    model,
    generation_id,
    step,
    layer,
    site,
    token_id,
    token,
    logprob,
    entropy,
    top_tokens,
    vector,
    run_id
from read_parquet(
    '${root}/generation_tokens/*/*.parquet',
    hive_partitioning = true,
    hive_types = { 'model': varchar }
);
