-- Figures that are there more than once under one key.
select
    study_id,
    model,
    prompt_set,
    scorer,
    metric,
    component,
    count(*) as copies
from stg_evaluations
group by all
having count(*) > 1;
