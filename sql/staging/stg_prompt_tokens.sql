-- One row per model, prompt, layer, site, template and position.
create view stg_prompt_tokens as
select
    model,
    model_id,
    prompt_id,
    layer,
    site,
    template,
    position,
    token_id,
    token,
    vector,
    rendered_hash,
    run_id
from read_parquet(
    '${root}/prompt_tokens/*/*.parquet',
    hive_partitioning = true,
    hive_types = { 'model': varchar }
);
