-- One row per drift analysis: does the projection of the positive class rise while the
-- model generates, more than that of the negative class, and not for another reason.
--
-- positive_empty_count: completions of the positive class that end at their first
--   token, and so have no slope
-- negative_empty_count: those of the negative class
-- max_new_tokens: the limit on the completions
-- positive_slope: per token, within completions of the positive class
-- negative_slope: per token, within completions of the negative class
-- slope_difference: the first less the second
-- lower: lower end of its 95 % interval
-- upper: upper end of its 95 % interval
-- p_value: two-sided, of slope_difference, by bootstrap
-- controls_held: names of the controls under which slope_difference is shown
-- controls_failed: names of those that explain it: their change towards 0 is shown
-- controls_missing: names of those that could not be computed
-- final_auroc: AUROC of the mean projection over the complete completion
-- decided_step: first step from which AUROC of the running mean stays at the bound;
--   an end of its interval is null where it is open
-- lead: median tokens from decided_step to the end of a completion of the positive
--   class, or to the event; an end of its interval is null where it is open
-- drift_cosine: cosine of the axis with the direction in which the vectors drift apart
-- is_drift: positive_slope and slope_difference have intervals above 0
-- is_controlled: every control that was computed holds, and those that match were
create view v_drift as
with
own as (
    select * from v_drift_controls
    where control = 'none'
),

empty as (
    select
        drift_id,
        count(*) filter (where is_positive) as positive_empty_count,
        count(*) filter (where not is_positive) as negative_empty_count
    from stg_trajectories
    where step_count = 1
    group by drift_id
),

last_aurocs as (
    select
        drift_id,
        arg_max(estimate, step) as final_auroc,
        arg_max(lower, step) as final_auroc_lower,
        arg_max(upper, step) as final_auroc_upper
    from stg_drift_figures
    where metric = 'running_auroc'
    group by drift_id
),

controls as (
    select
        drift_id,
        list(control order by control) filter (where holds) as controls_held,
        list(control order by control) filter (where not holds) as controls_failed,
        bool_and(coalesce(holds, false)) filter (
            where control != 'other_text'
        ) as is_held,
        list_filter(
            [
                'lasting',
                'matched_length',
                'matched_prompt',
                'other_text',
                'random_axes',
                'shuffled_tokens'
            ],
            lambda name: not list_contains(list(control), name)
        ) as controls_missing
    from v_drift_controls
    where control != 'none'
    group by drift_id
),

wide as (
    select
        drift_id,
        any_value(parameters) as parameters,
        any_value(run_id) as run_id,
        pick(estimate, metric, 'positive_slope') as positive_slope,
        pick(lower, metric, 'positive_slope') as positive_slope_lower,
        pick(upper, metric, 'positive_slope') as positive_slope_upper,
        pick(estimate, metric, 'negative_slope') as negative_slope,
        pick(lower, metric, 'negative_slope') as negative_slope_lower,
        pick(upper, metric, 'negative_slope') as negative_slope_upper,
        pick(estimate, metric, 'drift_cosine') as drift_cosine,
        pick(estimate, metric, 'decided_step') as decided_step,
        pick(lower, metric, 'decided_step') as decided_step_lower,
        pick(upper, metric, 'decided_step') as decided_step_upper,
        pick(estimate, metric, 'lead') as lead,
        pick(lower, metric, 'lead') as lead_lower,
        pick(upper, metric, 'lead') as lead_upper
    from stg_drift_figures
    where step is null
    group by drift_id
)

select
    own.drift_id,
    own.model,
    own.model_id,
    own.axis_id,
    own.axis_name,
    own.kind,
    own.prompt_set,
    own.labeler,
    wide.parameters ->> '$.sampling.template' as template,
    (wide.parameters ->> '$.sampling.max_new_tokens')::integer as max_new_tokens,
    own.layer,
    wide.positive_slope,
    wide.positive_slope_lower,
    wide.positive_slope_upper,
    wide.negative_slope,
    wide.negative_slope_lower,
    wide.negative_slope_upper,
    own.difference as slope_difference,
    own.lower,
    own.upper,
    own.p_value,
    coalesce(controls.controls_held, []) as controls_held,
    coalesce(controls.controls_failed, []) as controls_failed,
    controls.controls_missing,
    wide.drift_cosine,
    last_aurocs.final_auroc,
    last_aurocs.final_auroc_lower,
    last_aurocs.final_auroc_upper,
    wide.decided_step,
    wide.decided_step_lower,
    wide.decided_step_upper,
    wide.lead,
    wide.lead_lower,
    wide.lead_upper,
    own.positive_count,
    own.negative_count,
    coalesce(empty.positive_empty_count, 0) as positive_empty_count,
    coalesce(empty.negative_empty_count, 0) as negative_empty_count,
    wide.parameters,
    wide.run_id,
    wide.positive_slope_lower > 0 and own.lower > 0 as is_drift,
    coalesce(controls.is_held, false)
    and not list_has_any(
        controls.controls_missing,
        ['lasting', 'matched_length', 'matched_prompt']
    ) as is_controlled
from own
inner join wide using (drift_id)
left join controls using (drift_id)
left join last_aurocs using (drift_id)
left join empty using (drift_id);
