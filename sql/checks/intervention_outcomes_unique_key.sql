-- Measurements of interventions that are there more than once under one key.
select
    intervention_id,
    prompt_id,
    metric,
    new_tokens,
    count(*) as copies
from stg_intervention_outcomes
group by all
having count(*) > 1;
