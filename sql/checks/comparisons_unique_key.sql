-- Figures of a comparison that are there more than once under one key.
select
    scoring_id,
    model_id,
    metric,
    count(*) as copies
from stg_comparisons
group by all
having count(*) > 1;
