-- One row per axis, model and prompt.
create view stg_projections as
select
    model,
    axis_id,
    model_id,
    prompt_id,
    layer,
    alignment_id,
    projection,
    run_id
from read_parquet(
    '${root}/projections/*/*.parquet',
    hive_partitioning = true,
    hive_types = { 'model': varchar }
);
