-- Projections that are there more than once under one key.
select
    axis_id,
    model_id,
    prompt_id,
    count(*) as copies
from stg_projections
group by all
having count(*) > 1;
