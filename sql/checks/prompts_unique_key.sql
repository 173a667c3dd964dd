-- Prompts that are in a set more than once, or share a place in it.
select
    prompt_set,
    prompt_id,
    position
from stg_prompts
qualify
    count(*) over (partition by prompt_set, prompt_id) > 1
    or count(*) over (partition by prompt_set, position) > 1;
