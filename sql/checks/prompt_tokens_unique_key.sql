-- Token vectors of prompts that are there more than once under one key.
select
    model_id,
    prompt_id,
    layer,
    site,
    template,
    position,
    count(*) as copies
from stg_prompt_tokens
group by all
having count(*) > 1;
