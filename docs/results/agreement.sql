-- The axis made without a model, judged on it: its AUROC and the value that it has to
-- exceed, and the cosine with the model's own aligned direction, with the 95th
-- percentile for shuffled labels. Then how the spaces agree: R2 of the alignment on
-- held-out rows, and the share of common neighbours among 10, each with the upper end
-- for shuffled rows.
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

maps as (
    select
        evaluations.study_id,
        evaluations.model,
        pick(
            evaluations.estimate,
            (evaluations.metric, evaluations.scorer),
            ('cosine_leave_one_out', 'aligned')
        ) as cosine,
        pick(
            p_value,
            (evaluations.metric, evaluations.scorer),
            ('cosine_leave_one_out', 'aligned')
        ) as p_value,
        pick(
            evaluations.upper,
            (evaluations.metric, evaluations.scorer),
            ('cosine_leave_one_out', 'shuffled_labels')
        )
            as cosine_null,
        pick(evaluations.estimate, evaluations.metric, 'r2_held_out') as r2,
        pick(evaluations.upper, evaluations.metric, 'r2_shuffled') as r2_null,
        pick(evaluations.estimate, evaluations.metric, 'mutual_knn') as mutual_knn,
        pick(evaluations.upper, evaluations.metric, 'mutual_knn_shuffled')
            as mutual_knn_null
    from evaluations
    group by all
)

select
    held_out.prompt_set,
    held_out.model,
    held_out.leave_one_out,
    held_out.leave_one_out_lower,
    held_out.leave_one_out_upper,
    held_out.leave_one_out_null,
    maps.* exclude (study_id, model)
from v_held_out as held_out
inner join studies using (study_id)
inner join maps using (study_id, model)
order by held_out.prompt_set, held_out.model;
