-- Models that are there more than once under one key.
select
    model_id,
    count(*) as copies
from stg_models
group by all
having count(*) > 1;
