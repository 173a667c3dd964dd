-- One row per prompt in a prompt set, with its label: that of one labeler per set,
-- `dataset` if it labelled any prompt of the set, else the first by name.
--
-- prompt_set: the name the set was imported under
-- prompt_id: hash of the normalised text (prompts.prompt_id)
-- label: the label's text, in the words of the source; null without one
-- is_positive: true for the concept's positive class; null without a label
create view v_prompts as
with
prompt_labels as (
    select * from stg_labels
    where generation_id is null
),

labelers as (
    select
        prompt_set,
        coalesce(
            min(labeler) filter (where labeler = 'dataset'), min(labeler)
        ) as labeler
    from prompt_labels
    group by prompt_set
),

labels as (
    select prompt_labels.*
    from prompt_labels
    inner join labelers using (prompt_set, labeler)
)

select
    prompts.prompt_set,
    prompts.prompt_id,
    prompts.pair_id,
    prompts.position,
    prompts.text,
    prompts.source,
    prompts.category,
    prompts.split,
    prompts.license,
    labels.label,
    labels.is_positive
from stg_prompts as prompts
left join labels using (prompt_set, prompt_id);
