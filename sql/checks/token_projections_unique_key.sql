-- Token projections that are there more than once under one key.
select
    axis_id,
    generation_id,
    step,
    layer,
    count(*) as copies
from stg_token_projections
group by all
having count(*) > 1;
