-- One row per drift analysis: does the projection of the positive class rise while the
-- model generates, more than that of the negative class, and not for another reason.
--
-- axis_id: the axis (axes.axis_id)
-- axis_name: its name (axes.name)
-- prompt_set: the set of the prompts
-- positive_count: completions of the positive class
-- negative_count: completions of the negative class
-- positive_empty_count: those of the positive class that end at their first token,
--   and so have no slope
-- negative_empty_count: those of the negative class
-- template: how the prompts were rendered
-- max_new_tokens: the limit on the completions
-- parameters: settings of the analysis and of the completions, as JSON
-- positive_slope: per token, within completions of the positive class
-- positive_slope_lower: lower end of its 95 % interval
-- positive_slope_upper: upper end of its 95 % interval
-- negative_slope: per token, within completions of the negative class
-- negative_slope_lower: lower end of its 95 % interval
-- negative_slope_upper: upper end of its 95 % interval
-- slope_difference: the first less the second
-- lower: lower end of its 95 % interval
-- upper: upper end of its 95 % interval
-- p_value: two-sided, of slope_difference, by bootstrap
-- controls_held: names of the controls that agree with slope_difference
-- controls_failed: names of those that do not
-- controls_missing: names of those that could not be computed
-- final_auroc: AUROC of the mean projection over the complete completion
-- final_auroc_lower: lower end of its 95 % interval
-- final_auroc_upper: upper end of its 95 % interval
-- decided_step: first step from which AUROC of the running mean stays at the bound
-- decided_step_lower: lower end of its 95 % interval; null: no end
-- decided_step_upper: upper end of its 95 % interval; null: no end
-- lead: median tokens from decided_step to the end of a completion of the positive
--   class, or to the event
-- lead_lower: lower end of its 95 % interval; null: no end
-- lead_upper: upper end of its 95 % interval; null: no end
-- drift_cosine: cosine of the axis with the direction in which the vectors drift apart
-- is_drift: positive_slope and slope_difference have intervals above 0
-- is_controlled: every control that was computed agrees, and those that match were
create view v_drift as
with
figures as (
    select * from stg_drift_figures
    where step is null
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
        any_value(model) as model,
        any_value(model_id) as model_id,
        any_value(axis_id) as axis_id,
        any_value(prompt_set) as prompt_set,
        any_value(labeler) as labeler,
        any_value(layer) as layer,
        any_value(parameters) as parameters,
        any_value(run_id) as run_id,
        pick(estimate, metric, 'positive_slope') as positive_slope,
        pick(lower, metric, 'positive_slope') as positive_slope_lower,
        pick(upper, metric, 'positive_slope') as positive_slope_upper,
        pick(estimate, metric, 'negative_slope') as negative_slope,
        pick(lower, metric, 'negative_slope') as negative_slope_lower,
        pick(upper, metric, 'negative_slope') as negative_slope_upper,
        max(estimate) filter (
            where metric = 'slope_difference' and control = 'none'
        ) as slope_difference,
        max(lower) filter (
            where metric = 'slope_difference' and control = 'none'
        ) as lower,
        max(upper) filter (
            where metric = 'slope_difference' and control = 'none'
        ) as upper,
        max(p_value) filter (
            where metric = 'slope_difference' and control = 'none'
        ) as p_value,
        pick(estimate, metric, 'drift_cosine') as drift_cosine,
        pick(estimate, metric, 'decided_step') as decided_step,
        pick(lower, metric, 'decided_step') as decided_step_lower,
        pick(upper, metric, 'decided_step') as decided_step_upper,
        pick(estimate, metric, 'lead') as lead,
        pick(lower, metric, 'lead') as lead_lower,
        pick(upper, metric, 'lead') as lead_upper,
        pick(positive_count, control, 'none') as positive_count,
        pick(negative_count, control, 'none') as negative_count
    from figures
    group by drift_id
),

final as (
    select
        wide.drift_id,
        wide.model,
        wide.model_id,
        wide.axis_id,
        axes.name as axis_name,
        axes.kind,
        wide.prompt_set,
        wide.labeler,
        wide.parameters ->> '$.sampling.template' as template,
        (wide.parameters ->> '$.sampling.max_new_tokens')::integer as max_new_tokens,
        wide.layer,
        wide.positive_slope,
        wide.positive_slope_lower,
        wide.positive_slope_upper,
        wide.negative_slope,
        wide.negative_slope_lower,
        wide.negative_slope_upper,
        wide.slope_difference,
        wide.lower,
        wide.upper,
        wide.p_value,
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
        wide.positive_count,
        wide.negative_count,
        coalesce(empty.positive_empty_count, 0) as positive_empty_count,
        coalesce(empty.negative_empty_count, 0) as negative_empty_count,
        wide.parameters,
        wide.run_id,
        wide.positive_slope_lower > 0 and wide.lower > 0 as is_drift,
        len(coalesce(controls.controls_failed, [])) = 0
        and not list_has_any(
            controls.controls_missing,
            ['lasting', 'matched_length', 'matched_prompt']
        ) as is_controlled
    from wide
    left join controls using (drift_id)
    left join last_aurocs using (drift_id)
    left join empty using (drift_id)
    left join stg_axes as axes using (axis_id)
)

select * from final;
