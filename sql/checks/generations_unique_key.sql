-- Completions that are there more than once under one key.
select
    generation_id,
    count(*) as copies
from stg_generations
group by all
having count(*) > 1;
