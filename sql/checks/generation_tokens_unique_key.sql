-- Tokens that are there more than once under one key.
select
    generation_id,
    step,
    layer,
    site,
    count(*) as copies
from stg_generation_tokens
group by all
having count(*) > 1;
