-- Jobs that are there more than once under one key.
select
    run_id,
    count(*) as copies
from stg_runs
group by all
having count(*) > 1;
