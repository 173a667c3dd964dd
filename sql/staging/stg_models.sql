-- One row per model at one revision, tokenizer and set of numerics.
create view stg_models as
select
    model_id,
    model,
    source,
    revision,
    architecture,
    d_model,
    layer_count,
    parameter_count,
    context_length,
    dtype,
    attention,
    quantization,
    adapter,
    adapter_hash,
    blocks,
    weights_hash,
    tokenizer_hash,
    template_hash,
    model_group,
    is_reference,
    license,
    run_id
from read_parquet(
    '${root}/models/*.parquet',
    hive_partitioning = false
);
