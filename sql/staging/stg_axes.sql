-- One row per named direction in a stated space.
create view stg_axes as
select
    axis_id,
    name,
    kind,
    method,
    space_model,
    space_model_id,
    layer,
    site,
    pooling,
    template,
    vector,
    raw_norm,
    fitted_model,
    held_out_model,
    alignment_id,
    source_axis_ids,
    prompt_set,
    positive_count,
    negative_count,
    row_set_hash,
    query,
    parameters,
    run_id
from read_parquet(
    '${root}/axes/*.parquet',
    hive_partitioning = false
);
