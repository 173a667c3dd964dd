-- How far the universal AUROC moves as one setting at a time changes: smallest and
-- largest value over all settings, the setting of the largest change, and the smallest
-- cosine with the axis where the AUROC is smallest. On the fitted set it is in sample.
with
studies as (
    select
        study_id,
        prompts
    from v_studies
    where
        label = 'demo'
        and prompts in ('demo_safety', 'safety_600')
        and direction = 'mean_diff'
        and alignment = 'ridge'
        and universal = 'svd'
        and ridge_lambda is null
        and lambda_policy = 'held_out'
        and pooling = 'last5_mean'
        and template = 'raw'
    qualify
        row_number() over (
            partition by prompts order by started_at desc, study_id asc
        ) = 1
)

select
    moved.prompt_set,
    moved.model,
    max(moved.own) as universal,
    min(moved.metric_min) as smallest,
    max(moved.metric_max) as largest,
    arg_max(moved.setting, moved.spread order by moved.setting) as setting,
    arg_min(moved.value_at_min, moved.metric_min order by moved.setting)
        as value_at_smallest,
    arg_min(moved.cosine_at_min, moved.metric_min order by moved.setting)
        as cosine_at_smallest
from v_sensitivity as moved
where
    moved.metric = 'universal'
    and moved.study_id in (select studies.study_id from studies)
group by moved.prompt_set, moved.model
order by moved.prompt_set, moved.model;
