-- Judged interventions that are there more than once under one key.
select
    experiment_id,
    axis_id,
    layers,
    strength,
    metric,
    prompt_set,
    is_positive,
    count(*) as copies
from stg_interventions
group by all
having count(*) > 1;
