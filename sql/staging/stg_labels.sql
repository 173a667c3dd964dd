-- One row per labelled prompt of a set, or generation, and labeler.
create view stg_labels as
select
    labeler,
    prompt_set,
    prompt_id,
    generation_id,
    label,
    is_positive,
    score,
    run_id
from read_parquet(
    '${root}/labels/*/*.parquet',
    hive_partitioning = true,
    hive_types = { 'labeler': varchar }
);
