-- One row per model, prompt, layer, site, pooling and template.
create view stg_activations as
select
    model,
    model_id,
    prompt_id,
    layer,
    site,
    pooling,
    template,
    vector,
    norm,
    token_count,
    pooled_start,
    pooled_end,
    pooled_tokens,
    rendered_hash,
    run_id
from read_parquet(
    '${root}/activations/*/*.parquet',
    hive_partitioning = true,
    hive_types = { 'model': varchar }
);
