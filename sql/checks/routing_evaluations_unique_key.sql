-- Figures of a policy that are there more than once under one key.
select
    routing_id,
    policy,
    metric,
    count(*) as copies
from stg_routing_evaluations
group by all
having count(*) > 1;
