-- Scored answers on axes, or of completions, that are not stored.
with
answers as (
    select
        scoring_id,
        axis_id,
        unnest(generation_ids) as generation_id
    from stg_scored_answers
)

select
    answers.scoring_id,
    answers.axis_id,
    count(*) filter (where generations.generation_id is null) as unknown_count
from answers
left join stg_axes as axes using (axis_id)
left join stg_generations as generations using (generation_id)
where axes.axis_id is null or generations.generation_id is null
group by answers.scoring_id, answers.axis_id;
