-- One row per study, prompt set, model and premise of the claims that fails: a reason
-- why the numbers cannot tell whether the models share an axis, whatever they are.
--
-- position: the order in which premises are named
-- premise: alignment_overlap, alignment_copies, few_prompts, no_signal, map, surface,
--   no_agreement, wording, few_controls
-- stops: the answers that cannot be given: that the axis is shared (or works on the
--   model), not shared, or that it breaks down in the model alone; that steering along
--   it changes the model (steers), or has no effect
-- at_model: the model in which it fails: a bad map is in the way of all models; null
--   where it is of the group
-- scorer: the scorer of the number that fails, if it is an AUROC
-- metric_value: the number that fails
-- compared_with: the value that it is compared with
-- cause: the reason in plain words
create view v_claim_premises as
with
evaluations as (
    select
        *,
        replace(scorer, '_cross_validated', '') as axis
    from stg_evaluations
    -- The rows of `axes evaluate` name what they were fitted on, and are of no study.
    where model is not null and fitted_on is null
),

areas as (
    select * from evaluations
    where
        metric = 'auroc'
        and not is_in_sample
        and axis in ('native', 'universal', 'leave_one_out')
),

models as (
    select
        study_id,
        prompt_set,
        model,
        pick(estimate, axis, 'native') as native,
        pick(lower, axis, 'native') as native_lower,
        pick(upper, axis, 'native') as native_upper,
        (pick(upper, axis, 'leave_one_out') - pick(lower, axis, 'leave_one_out'))
        / 2 as reach,
        min(least(positive_count, negative_count)) as class_size
    from areas
    group by study_id, prompt_set, model
),

-- Each axis minus the surface baseline that it exceeds least.
exceeded as (
    select
        study_id,
        prompt_set,
        model,
        split_part(axis, '_minus_', 1) as axis,
        arg_min(split_part(axis, '_minus_', 2), lower order by axis) as baseline,
        arg_min(estimate, lower order by axis) as difference,
        min(lower) as lower
    from evaluations
    where
        metric = 'auroc_difference'
        and axis like '%_minus_%'
        and axis != 'native_minus_universal'
        and not is_in_sample
    group by all
),

maps as (
    select
        study_id,
        model as at_model,
        coalesce(pick(estimate, metric, 'benign_variance_ratio'), 1.0)
            as variance_ratio,
        -- The reference is mapped by the identity.
        coalesce(pick(estimate, metric, 'mapped_gain'), 1.0) as gain,
        coalesce(pick(estimate, metric, 'r2_held_out'), 1.0) as r2,
        pick(p_value, metric, 'cosine_leave_one_out') as p_value
    from evaluations
    where scorer = 'aligned'
    group by study_id, model
),

agreements as (
    select
        shared.study_id,
        shared.prompt_set,
        count(*) filter (
            where
            shared.leave_one_out_lower > shared.leave_one_out_null
            or maps.p_value < 0.05
        ) as agreeing_count,
        count(*) as model_count
    from v_held_out as shared
    left join maps
        on shared.study_id = maps.study_id and shared.model = maps.at_model
    where shared.leave_one_out is not null
    group by shared.study_id, shared.prompt_set
),

failing as (
    select
        study_id,
        prompt_set,
        model,
        1 as position,
        'alignment_overlap' as premise,
        ['shared', 'not shared', 'break'] as stops,
        model as at_model,
        null::varchar as scorer,
        estimate as metric_value,
        0.0 as compared_with,
        format(
            '{:.0f} prompts of {} are judged for {} and aligned on, too',
            estimate, prompt_set, model
        ) as cause
    from evaluations
    where metric = 'alignment_overlap' and estimate > 0
    union all by name
    select
        study_id,
        prompt_set,
        model,
        1 as position,
        'alignment_copies' as premise,
        ['shared', 'not shared', 'break'] as stops,
        model as at_model,
        null::varchar as scorer,
        estimate as metric_value,
        0.01 as compared_with,
        format(
            'the alignment set holds copies of the labelled prompts: of {:.0f} % of {}',
            100 * estimate, prompt_set
        ) as cause
    from evaluations
    where metric = 'alignment_copies' and estimate > 0.01
    union all by name
    select
        study_id,
        prompt_set,
        model,
        2 as position,
        'few_prompts' as premise,
        ['shared', 'not shared', 'break'] as stops,
        model as at_model,
        class_size as metric_value,
        20.0 as compared_with,
        format(
            'too few prompts: {} of the smaller class of {}', class_size, prompt_set
        )
        -- Without an AUROC of the leave-one-out axis there is no reach.
        || coalesce(
            format(
                ', and the interval of the shared axis of {} reaches {:.2f} to '
                || 'either side',
                model, reach
            ),
            ''
        ) as cause
    from models
    where class_size < 20 or reach > 0.15
    union all by name
    select
        study_id,
        prompt_set,
        model,
        3 as position,
        'no_signal' as premise,
        ['shared', 'not shared', 'break'] as stops,
        model as at_model,
        'native' as scorer,
        native as metric_value,
        0.5 as compared_with,
        format(
            'the direction of {} itself is not shown to separate {} (AUROC {:.3f}, '
            || '{:.3f} to {:.3f})',
            model, prompt_set, native, native_lower, native_upper
        ) as cause
    from models
    where native_lower <= 0.5
    union all by name
    -- The axis is made by all maps, so that one bad map is in the way of all models.
    select
        models.study_id,
        models.prompt_set,
        models.model,
        4 as position,
        'map' as premise,
        ['not shared', 'break', 'no effect'] as stops,
        maps.at_model,
        maps.variance_ratio as metric_value,
        0.8 as compared_with,
        format(
            'the alignment may not carry the direction of {}: benign prompts vary '
            || 'along it {:.2f} times as much as within the classes, mapping keeps '
            || '{:.2f} of its length, R2 {:.2f}',
            maps.at_model, maps.variance_ratio, maps.gain, maps.r2
        ) as cause
    from models
    inner join maps using (study_id)
    where maps.variance_ratio < 0.8 or maps.gain < 0.75 or maps.r2 < 0.2
    union all by name
    select
        areas.study_id,
        areas.prompt_set,
        areas.model,
        5 as position,
        'surface' as premise,
        case areas.axis
            when 'leave_one_out' then ['shared']
            when 'native' then ['not shared', 'break']
            else []
        end as stops,
        areas.model as at_model,
        areas.scorer,
        areas.estimate as metric_value,
        areas.estimate - exceeded.difference as compared_with,
        coalesce(
            format(
                'without a model, the baseline {} has AUROC {:.3f} on {}; {} of {} has '
                || '{:.3f} and is not shown to exceed it',
                replace(exceeded.baseline, '_', ' '),
                areas.estimate - exceeded.difference,
                areas.prompt_set,
                replace(areas.axis, '_', ' '),
                areas.model,
                areas.estimate
            ),
            'no surface baseline is stored: run the study again'
        ) as cause
    from areas
    left join exceeded using (study_id, prompt_set, model, axis)
    where exceeded.lower is null or exceeded.lower <= 0
    union all by name
    select
        models.study_id,
        models.prompt_set,
        models.model,
        6 as position,
        'no_agreement' as premise,
        ['break'] as stops,
        agreements.agreeing_count as metric_value,
        agreements.model_count / 2 as compared_with,
        format(
            'the axis of the others is shown to work, or to agree beyond labels '
            || 'shuffled alike, in {} of {} models only',
            agreements.agreeing_count, agreements.model_count
        ) as cause
    from models
    inner join agreements using (study_id, prompt_set)
    where agreements.agreeing_count <= agreements.model_count / 2
    union all by name
    select
        study_id,
        prompt_set,
        model,
        7 as position,
        'wording' as premise,
        ['shared'] as stops,
        model as at_model,
        leave_one_out as metric_value,
        0.5 as compared_with,
        format(
            'in other words ({}) the axis of the others is not shown to work on {} '
            || '(AUROC {:.3f}, {:.3f} to {:.3f})',
            judged_on, model, leave_one_out, leave_one_out_lower, leave_one_out_upper
        ) as cause
    from v_source_transfer
    where fitted_on = prompt_set and leave_one_out_lower <= 0.5
    union all by name
    select
        study_id,
        prompt_set,
        models[1] as model,
        0 as position,
        'few_controls' as premise,
        ['steers', 'no effect'] as stops,
        models[1] as at_model,
        format(
            'too few controls: no effect on {} could exceed them after correction for '
            || 'its tests',
            model
        ) as cause
    from v_claim_estimates
    where claim = 'steering' and null_value is null
)

select * from failing;
