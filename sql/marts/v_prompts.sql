-- One row per prompt in a prompt set, with its label.
-- label, is_positive: of one labeler per set, `dataset` where it labelled any of it,
-- else the first there is; null for prompts without a label by it.
create view v_prompts as
with
prompts as (select * from stg_prompts),

labels as (
    select * from stg_labels
    where generation_id is null
    qualify
        labeler = first_value(labeler) over (
            partition by prompt_set
            order by labeler != 'dataset', labeler
        )
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
