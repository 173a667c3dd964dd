-- Figures that are there more than once under one key.
select
    study_id,
    model,
    layer,
    prompt_set,
    scorer,
    fitted_on,
    judged_on,
    metric,
    component,
    count(*) as copies
from stg_evaluations
group by all
having count(*) > 1;
