-- Scored answers of completions that are not stored.
with
answers as (
    select
        scoring_id,
        unnest(generation_ids) as generation_id
    from stg_scored_answers
)

select
    answers.scoring_id,
    count(*) as unknown_count
from answers
anti join stg_generations using (generation_id)
group by answers.scoring_id;
