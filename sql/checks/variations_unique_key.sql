-- Varied figures that are there more than once under one key.
select
    study_id,
    setting,
    value,
    model,
    prompt_set,
    figure,
    count(*) as copies
from stg_variations
group by all
having count(*) > 1;
