-- One row per intervention, prompt, metric and limit of the completion.
create view stg_intervention_outcomes as
select
    model,
    intervention_id,
    model_id,
    axis_id,
    layers,
    mode,
    strength,
    unit,
    positions,
    above,
    condition,
    template,
    prompt_id,
    metric,
    new_tokens,
    generation_id,
    value,
    run_id
from read_parquet(
    '${root}/intervention_outcomes/*/*.parquet',
    hive_partitioning = true,
    hive_types = { 'model': varchar }
);
