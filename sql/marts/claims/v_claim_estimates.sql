-- One row per study, claim of the source study, prompt set and model (or pair of models
-- or drift analysis): the value that decides the claim, and what it says by itself, on
-- prompts that no direction was fitted on.
--
-- claim: the claim's name (v_claims)
-- model: the model; of no_threshold_transfer the one that the threshold is chosen on
--   and the one that it is applied to; of upward_drift with the template and the limit
--   of its completions; of steering with the measurement of its behaviour
-- models: the models by name
-- estimate: of shared_axis the AUROC of the axis made without the model; of
--   no_threshold_transfer balanced accuracy lost against the model's own threshold; of
--   upward_drift the slope per token, positive less negative class; of steering the
--   size of the effect with the smallest p-value; else AUROC of the universal axis
--   minus that of the native one. Differences are paired
-- null_value: of shared_axis v_held_out.leave_one_out_null, of regime_break the loss
--   that is called a break, of universal_at_least_native the one still called none; of
--   steering the 95th percentile of the controls, null with too few to pass a test
-- is_met: the interval lies above the null, of regime_break below it; a threshold fails
--   to transfer; the positive class rises, more than the other, under every control; an
--   effect of steering exceeds the controls, corrected for its tests, in every model
-- is_refuted: of shared_axis it is not met, and lies below 0.5, or no model's interval
--   reaches 0.6; of gains_for_weak_models it lies below 0.02, the smallest gain that
--   counts; a threshold transfers; the class rises less under every control, or a
--   control is shown to explain the difference; every effect of steering is shown to be
--   smaller than the null; else the interval lies on the other side of the null. Where
--   one model decides, its interval holds at 95 % for all models together
create view v_claim_estimates as
with
studies as (
    select distinct
        study_id,
        axis_id,
        parameters ->> '$.prompts' as fitted_on
    from stg_evaluations
    where scorer = 'universal' and metric = 'auroc'
),

-- Of each study the model with the lowest native AUROC on the set that directions were
-- fitted on. On that set it would gain by selection.
weakest as (
    select
        study_id,
        arg_min(model, native order by model) as model
    from v_held_out
    where is_out_of_fold
    group by study_id
    having count(*) > 1
),

-- Which model an axis was made without.
made_without as (
    select
        study_id,
        model,
        axis_id as source_axis_id,
        count(*) over (partition by study_id) as model_count
    from stg_evaluations
    where scorer = 'leave_one_out' and axis_id is not null
    group by study_id, model, axis_id
),

-- The tests of a model's experiment with the most controls, of those of the last one.
steered as (
    select
        made_without.study_id,
        made_without.model_count,
        tests.*,
        tests.test_count < 0.05 * (1 + tests.control_count) as is_enough
    from v_interventions as tests
    inner join made_without using (source_axis_id, model)
    where tests.test_count is not null
    qualify
        1 = dense_rank() over (
            partition by made_without.study_id, tests.model, tests.prompt_set
            order by
                tests.control_count desc, tests.judged_at desc, tests.experiment_id asc
        )
),

-- Of a model the test with the smallest p-value, and whether any is passed.
decided as (
    select
        study_id,
        prompt_set,
        model,
        min(metric) as metric,
        any_value(model_count) as model_count,
        arg_min(
            (
                abs(estimate),
                if(estimate > 0, lower, -upper),
                greatest(upper, -lower),
                if(is_enough, control_bound, null)
            ),
            control_p_value order by axis_id, layers, metric, prompts_class
        ) as effect,
        bool_or(
            control_p_value_adjusted < 0.05
            and (lower > 0 or upper < 0)
            and verdict not like 'small%'
        ) as is_met,
        bool_and(is_enough and greatest(upper, -lower) < control_bound) as is_refuted
    from steered
    group by study_id, prompt_set, model
),

gains (claim, null_value) as (
    values
    ('universal_at_least_native', -0.02),
    ('gains_for_weak_models', 0.0),
    ('regime_break', -0.2)
),

final as (
    select
        'shared_axis' as claim,
        study_id,
        prompt_set,
        model,
        [model] as models,
        leave_one_out as estimate,
        leave_one_out_lower as lower,
        leave_one_out_upper as upper,
        leave_one_out_null as null_value,
        coalesce(leave_one_out_lower > leave_one_out_null, false) as is_met,
        not is_met
        and coalesce(
            leave_one_out_ceiling < 0.5
            or max(leave_one_out_upper) over (partition by study_id, prompt_set) < 0.6,
            false
        ) as is_refuted
    from v_held_out
    where leave_one_out is not null
    union all by name
    select
        gains.claim,
        held_out.study_id,
        held_out.prompt_set,
        held_out.model,
        [held_out.model] as models,
        held_out.gain as estimate,
        held_out.gain_lower as lower,
        held_out.gain_upper as upper,
        gains.null_value,
        case gains.claim
            when 'regime_break' then held_out.gain_ceiling < gains.null_value
            else held_out.gain_lower > gains.null_value
        end as is_met,
        case gains.claim
            when 'regime_break' then held_out.gain_lower > gains.null_value
            when 'gains_for_weak_models' then not is_met and held_out.gain_upper < 0.02
            else held_out.gain_ceiling < gains.null_value
        end as is_refuted
    from v_held_out as held_out
    cross join gains
    left join weakest using (study_id, model)
    where
        held_out.gain is not null
        and (
            gains.claim != 'gains_for_weak_models'
            or (weakest.model is not null and not held_out.is_out_of_fold)
        )
    union all by name
    select
        'no_threshold_transfer' as claim,
        studies.study_id,
        transfers.prompt_set,
        transfers.fitted_on || ' to ' || transfers.model as model,
        [transfers.fitted_on, transfers.model] as models,
        transfers.accuracy_loss as estimate,
        transfers.accuracy_loss_lower as lower,
        transfers.accuracy_loss_upper as upper,
        0.0 as null_value,
        transfers.is_failing as is_met,
        transfers.is_carried_over as is_refuted
    from v_threshold_transfer as transfers
    inner join studies using (axis_id)
    where
        transfers.method = 'uncalibrated'
        and not transfers.is_own
        and not transfers.is_in_sample
    union all by name
    select
        'upward_drift' as claim,
        studies.study_id,
        analyses.prompt_set,
        concat_ws(
            ' ', analyses.model, analyses.template, analyses.max_new_tokens
        ) as model,
        [analyses.model] as models,
        analyses.slope_difference as estimate,
        analyses.lower,
        analyses.upper,
        0.0 as null_value,
        coalesce(analyses.is_drift and analyses.is_controlled, false) as is_met,
        coalesce(
            (analyses.upper < 0 and analyses.is_controlled)
            or (analyses.is_drift and len(analyses.controls_failed) > 0),
            false
        ) as is_refuted
    from v_drift as analyses
    inner join studies using (axis_id)
    where analyses.labeler is null and analyses.prompt_set != studies.fitted_on
    union all by name
    select
        'steering' as claim,
        decided.study_id,
        decided.prompt_set,
        decided.model || ' ' || decided.metric as model,
        [decided.model] as models,
        decided.effect[1] as estimate,
        decided.effect[2] as lower,
        decided.effect[3] as upper,
        decided.effect[4] as null_value,
        decided.is_met
        and decided.model_count
        = count(*) over (partition by decided.study_id, decided.prompt_set) as is_met,
        decided.is_refuted
    from decided
)

select * from final;
