-- Findings that are there more than once under one key.
select
    study_id,
    model,
    prompt_set,
    check_name,
    count(*) as copies
from stg_diagnostics
group by all
having count(*) > 1;
