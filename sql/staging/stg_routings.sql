-- One row per routing, policy, prompt and model that it goes to.
create view stg_routings as
select
    routing_id,
    scoring_id,
    policy,
    model,
    model_id,
    prompt_set,
    prompt_id,
    axis_id,
    share,
    cost,
    why,
    run_id
from read_parquet(
    '${root}/routings/*.parquet',
    hive_partitioning = false
);
