-- One row per drift analysis and control, and one with the control none for the
-- analysis itself: the difference of the classes' slopes, with its interval. The nulls
-- random_axes and shuffled_tokens give the difference without any drift: their mean and
-- central 95 %; p_value is the share of them at least as far from 0 as the observed
-- difference (for random axes, each divided by its standard error).
--
-- axis_name: its name (axes.name)
-- difference: slope of the positive class less that of the negative, per token
-- is_null: estimate and interval are of a null
-- change: difference less that of the analysis itself, on the same resamples
-- holds: true if the control has the sign of the observed difference and an interval
--   that excludes 0 (for a null, p_value below 0.05); false if it does not, and its
--   change towards 0 is shown: it explains the difference; null if neither is shown, as
--   on few rows, and for other_text, which separates the prompt from the text
-- imbalance_before: standardised difference of the classes in what was matched
-- imbalance_after: the same of the matched pairs
create view v_drift_controls as
with
figures as (
    select * from stg_drift_figures
    where step is null
),

described as (
    select
        drift_id,
        control,
        pick(estimate, metric, 'slope_change') as change,
        pick(lower, metric, 'slope_change') as change_lower,
        pick(upper, metric, 'slope_change') as change_upper,
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
    described.change,
    described.change_lower,
    described.change_upper,
    described.imbalance_before,
    described.imbalance_after,
    differences.positive_count,
    differences.negative_count,
    differences.is_null,
    case
        when differences.control = 'other_text' then null
        when differences.is_null then nullif(differences.p_value < 0.05, false)
        when
            if(differences.own > 0, differences.lower > 0, differences.upper < 0)
            then true
        when
            if(
                differences.own > 0,
                described.change_upper < 0,
                described.change_lower > 0
            )
            then false
    end as holds
from differences
left join described using (drift_id, control)
left join stg_axes as axes using (axis_id);
