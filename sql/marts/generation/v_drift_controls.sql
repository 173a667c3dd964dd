-- One row per drift analysis and control, and one with the control none for the
-- analysis itself: the difference of the classes' slopes, with its interval. The nulls
-- random_axes and shuffled_tokens give the difference without any drift: their mean and
-- central 95 %; p_value is the share of them at least as far from 0 as the observed
-- difference (for random axes, each divided by its standard error).
--
-- axis_name: its name (axes.name)
-- difference: slope of the positive class less that of the negative, per token
-- is_null: estimate and interval are of a null
-- holds: the control has the sign of the observed difference and an interval that
--   excludes 0; for a null, p_value is below 0.05; null for other_text, which separates
--   the prompt from the text
-- imbalance_before: standardised difference of the classes in what was matched
-- imbalance_after: the same of the matched pairs
create view v_drift_controls as
with
figures as (
    select * from stg_drift_figures
    where step is null
),

imbalances as (
    select
        drift_id,
        control,
        pick(estimate, metric, 'imbalance_before') as imbalance_before,
        pick(estimate, metric, 'imbalance_after') as imbalance_after
    from figures
    group by drift_id, control
),

differences as (
    select
        *,
        control in ('random_axes', 'shuffled_tokens') as is_null,
        max(estimate) filter (where control = 'none') over (
            partition by drift_id
        ) as own
    from figures
    where metric = 'slope_difference'
)

select
    differences.drift_id,
    differences.model,
    differences.model_id,
    differences.axis_id,
    axes.name as axis_name,
    axes.kind,
    differences.prompt_set,
    differences.labeler,
    differences.layer,
    differences.control,
    differences.estimate as difference,
    differences.lower,
    differences.upper,
    differences.p_value,
    imbalances.imbalance_before,
    imbalances.imbalance_after,
    differences.positive_count,
    differences.negative_count,
    differences.is_null,
    case
        when differences.control = 'other_text' then null
        when differences.is_null then differences.p_value < 0.05
        when differences.own > 0 then differences.lower > 0
        else differences.upper < 0
    end as holds
from differences
left join imbalances using (drift_id, control)
left join stg_axes as axes using (axis_id);
