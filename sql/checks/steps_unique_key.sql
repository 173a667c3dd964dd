-- Steps that are there more than once.
select
    step_id,
    count(*) as copies
from stg_steps
group by step_id
having count(*) > 1;
