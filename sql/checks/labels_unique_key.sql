-- Labels that are there more than once under one key.
select
    labeler,
    prompt_set,
    prompt_id,
    generation_id,
    count(*) as copies
from stg_labels
group by all
having count(*) > 1;
