-- One row per prompt in a prompt set, with its label.
-- label, is_positive: by the labeler `dataset`, the set's own; null without one.
create view v_prompts as
with
prompts as (select * from stg_prompts),

labels as (
    select * from stg_labels
    where labeler = 'dataset' and generation_id is null
),

final as (
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
    from prompts
    left join labels
        on
            prompts.prompt_set = labels.prompt_set
            and prompts.prompt_id = labels.prompt_id
)

select * from final;
