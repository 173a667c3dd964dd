-- One row per routing, policy and metric.
create view stg_routing_evaluations as
select
    routing_id,
    scoring_id,
    policy,
    prompt_set,
    axis_id,
    metric,
    estimate,
    lower,
    upper,
    p_value,
    prompt_count,
    parameters,
    run_id
from read_parquet(
    '${root}/routing_evaluations/*.parquet',
    hive_partitioning = false
);
