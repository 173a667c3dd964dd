-- One row per study, model, prompt set, check and metric: the results of `axes
-- diagnose`, one number per row. A check without numbers has one row with no metric.
--
-- metric: name of the number
-- value: the number
create view v_diagnostics as
with
named as (
    select
        *,
        unnest(
            if(len(json_keys(figures)) = 0, [null::varchar], json_keys(figures))
        ) as metric
    from stg_diagnostics
)

select
    study_id,
    model,
    model_id,
    prompt_set,
    axis_id,
    check_name,
    place,
    metric,
    verdict,
    try_cast(json_extract_string(figures, metric) as double) as value,
    is_fault
from named;
