-- One row per model at one revision, dtype and tokenizer.
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
