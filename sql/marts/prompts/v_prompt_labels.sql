-- One row per prompt in a prompt set, with its label by every labeler.
--
-- prompt_set: the name the set was imported under
-- prompt_id: hash of the normalised text (prompts.prompt_id)
-- labels: map from labeler to its label, null without any
-- opinions: map from labeler to whether its label is positive, null without any
-- labeler_count: labelers that labelled it
-- positive_votes: how many labels are positive
-- negative_votes: how many labels are negative
-- is_contested: whether there are both; null without a label
create view v_prompt_labels as
with
labels as (
    select * from stg_labels
    where generation_id is null
),

pivoted as (
    select
        prompt_set,
        prompt_id,
        map(
            list(labeler order by labeler),
            list(label order by labeler)
        ) as labels,
        map(
            list(labeler order by labeler),
            list(is_positive order by labeler)
        ) as opinions,
        count(*) as labeler_count,
        count(*) filter (where is_positive) as positive_votes,
        count(*) filter (where not is_positive) as negative_votes
    from labels
    group by prompt_set, prompt_id
)

select
    prompts.prompt_set,
    prompts.prompt_id,
    prompts.pair_id,
    prompts.text,
    prompts.source,
    prompts.category,
    prompts.split,
    pivoted.labels,
    pivoted.opinions,
    prompts.position,
    coalesce(pivoted.labeler_count, 0) as labeler_count,
    coalesce(pivoted.positive_votes, 0) as positive_votes,
    coalesce(pivoted.negative_votes, 0) as negative_votes,
    pivoted.positive_votes > 0 and pivoted.negative_votes > 0 as is_contested
from stg_prompts as prompts
left join pivoted using (prompt_set, prompt_id);
