-- Routed prompts that are there more than once under one key.
select
    routing_id,
    policy,
    prompt_id,
    model_id,
    count(*) as copies
from stg_routings
group by all
having count(*) > 1;
