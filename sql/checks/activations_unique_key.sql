-- Activations that are there more than once under one key.
select
    model,
    model_id,
    prompt_id,
    layer,
    site,
    pooling,
    template,
    count(*) as copies
from stg_activations
group by all
having count(*) > 1;
