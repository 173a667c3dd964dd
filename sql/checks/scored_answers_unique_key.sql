-- Scored answers that are there more than once under one key.
select
    scoring_id,
    model_id,
    prompt_id,
    count(*) as copies
from stg_scored_answers
group by all
having count(*) > 1;
