-- Figures of drift that are there more than once under one key.
select
    drift_id,
    metric,
    control,
    step,
    count(*) as copies
from stg_drift_figures
group by all
having count(*) > 1;
