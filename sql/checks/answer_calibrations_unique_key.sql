-- Calibrations of answers that are there more than once under one key.
select
    scoring_id,
    model_id,
    source,
    count(*) as copies
from stg_answer_calibrations
group by all
having count(*) > 1;
