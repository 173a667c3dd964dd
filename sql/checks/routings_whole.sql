-- Routed prompts whose shares do not add up to 1.
select
    routing_id,
    policy,
    prompt_id,
    sum(share) as share
from stg_routings
group by routing_id, policy, prompt_id
having abs(sum(share) - 1) > 1e-9;
