-- Area under the ROC curve (AUROC) and share of positive prompts found at 1 % false
-- positives (TPR), with 95 % intervals, on prompts that no direction was fitted on. Of
-- the baselines without a model the best is shown; `least_excess` is the lower end of
-- the interval of the AUROC minus that of the baseline that it exceeds least.
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
),

judged as (
    select
        evaluations.*,
        replace(evaluations.scorer, '_cross_validated', '') as axis,
        coalesce(evaluations.model, 'without a model') as scored_by
    from evaluations
    inner join studies using (study_id)
    where not evaluations.is_in_sample and evaluations.prompt_set is not null
),

excess as (
    select
        prompt_set,
        scored_by,
        split_part(axis, '_minus_', 1) as axis,
        min(lower) as least_excess
    from judged
    where metric = 'auroc_difference' and axis != 'native_minus_universal'
    group by all
),

areas as (
    select
        prompt_set,
        scored_by,
        axis,
        pick(estimate, metric, 'auroc') as auroc,
        pick(lower, metric, 'auroc') as auroc_lower,
        pick(upper, metric, 'auroc') as auroc_upper,
        pick(estimate, metric, 'tpr_at_fpr_0.01') as tpr,
        pick(lower, metric, 'tpr_at_fpr_0.01') as tpr_lower,
        pick(upper, metric, 'tpr_at_fpr_0.01') as tpr_upper
    from judged
    group by all
)

select
    areas.prompt_set,
    areas.scored_by as model,
    areas.axis,
    areas.* exclude (prompt_set, scored_by, axis),
    excess.least_excess
from areas
left join excess using (prompt_set, scored_by, axis)
where
    areas.auroc is not null
    and (
        areas.axis in ('native', 'universal', 'leave_one_out')
        or areas.scored_by = 'without a model'
    )
qualify
    areas.scored_by != 'without a model'
    or row_number() over (
        partition by areas.prompt_set, areas.scored_by
        order by areas.auroc desc, areas.axis asc
    ) = 1
order by areas.prompt_set, areas.scored_by, areas.axis;
