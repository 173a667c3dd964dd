-- One row per axis, completion, step and layer.
create view stg_token_projections as
select
    model,
    axis_id,
    generation_id,
    step,
    layer,
    alignment_id,
    projection,
    run_id
from read_parquet(
    '${root}/token_projections/*/*.parquet',
    hive_partitioning = true,
    hive_types = { 'model': varchar }
);
