-- Trajectories that are there more than once under one key.
select
    drift_id,
    generation_id,
    count(*) as copies
from stg_trajectories
group by all
having count(*) > 1;
