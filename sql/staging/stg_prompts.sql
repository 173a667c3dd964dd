-- One row per prompt in a prompt set.
create view stg_prompts as
select
    prompt_set,
    prompt_id,
    position,
    text,
    source,
    category,
    split,
    license,
    pair_id,
    run_id
from read_parquet(
    '${root}/prompts/*/*.parquet',
    hive_partitioning = true,
    hive_types = { 'prompt_set': varchar }
);
