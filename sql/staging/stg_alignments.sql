-- One row per fitted map from one model's space to the reference's.
create view stg_alignments as
select
    alignment_id,
    model,
    model_id,
    layer,
    reference_model,
    reference_model_id,
    reference_layer,
    site,
    pooling,
    template,
    method,
    ridge_lambda,
    lambda_policy,
    weights,
    intercept,
    r2_held_out,
    r2_uniform,
    prompt_set,
    row_count,
    row_set_hash,
    seed,
    run_id
from read_parquet(
    '${root}/alignments/*.parquet',
    hive_partitioning = false
);
