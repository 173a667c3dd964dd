-- One row per study, prompt set, model and premise of the claims that fails: a reason
-- why the numbers cannot tell whether the models share an axis, whatever they are.
--
-- position: the order in which premises are named
-- premise: alignment_overlap, few_prompts, no_signal, map, surface, no_agreement
-- stops: the answers that cannot be given: that the axis is shared (or works on the
--   model), not shared, or that it breaks down in the model alone
-- at_model: the model in which it fails: a bad map is in the way of all models; null
--   where it is of the group
-- scorer: the scorer of the number that fails, if it is an AUROC
-- figure: the number that fails
-- beside: the value that it is compared with
-- cause: the reason in plain words
create view v_claim_premises as
with
evaluations as (
    select
        *,
        replace(scorer, '_cross_validated', '') as figure
    from stg_evaluations
    where model is not null
),

areas as (
    select
        study_id,
        prompt_set,
        model,
        pick(estimate, figure, 'native') as native,
        pick(lower, figure, 'native') as native_lower,
        pick(upper, figure, 'native') as native_upper,
        (
            pick(upper, figure, 'leave_one_out')
            - pick(lower, figure, 'leave_one_out')
        ) / 2 as reach,
        min(least(positive_count, negative_count)) as class_size
    from evaluations
    where
        metric = 'auroc'
        and not is_in_sample
        and figure in ('native', 'universal', 'leave_one_out')
    group by study_id, prompt_set, model
),

-- Each axis minus the surface baseline that it exceeds least.
exceeded as (
    select
        study_id,
        prompt_set,
        model,
        split_part(figure, '_minus_', 1) as axis,
        arg_min(split_part(figure, '_minus_', 2), lower) as baseline,
        arg_min(estimate, lower) as difference,
        min(lower) as lower
    from evaluations
    where
        metric = 'auroc_difference'
        and figure like '%_minus_%'
        and figure != 'native_minus_universal'
        and not is_in_sample
    group by all
),

surfaces as (
    select
        areas.*,
        axes.figure as axis,
        axes.estimate,
        axes.scorer,
        exceeded.baseline,
        exceeded.difference,
        exceeded.lower
    from areas
    inner join evaluations as axes using (study_id, prompt_set, model)
    left join exceeded
        on
            areas.study_id = exceeded.study_id
            and areas.prompt_set = exceeded.prompt_set
            and areas.model = exceeded.model
            and axes.figure = exceeded.axis
    where
        axes.metric = 'auroc'
        and not axes.is_in_sample
        and axes.figure in ('native', 'universal', 'leave_one_out')
),

maps as (
    select
        study_id,
        model,
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
        count(*) filter (where shared.is_met or maps.p_value < 0.05) as agreeing_count,
        count(*) as model_count
    from v_claim_shared_axis as shared
    left join maps using (study_id, model)
    group by shared.study_id, shared.prompt_set
),

final as (
    select
        study_id,
        prompt_set,
        model,
        1 as position,
        'alignment_overlap' as premise,
        ['shared', 'not shared', 'break'] as stops,
        model as at_model,
        null::varchar as scorer,
        estimate as figure,
        0.0 as beside,
        format(
            '{:.0f} prompts of {} are judged for {} and aligned on, too',
            estimate, prompt_set, model
        ) as cause
    from evaluations
    where metric = 'alignment_overlap' and estimate > 0
    union all
    select
        study_id,
        prompt_set,
        model,
        2 as position,
        'few_prompts' as premise,
        ['shared', 'not shared', 'break'] as stops,
        model as at_model,
        null as scorer,
        class_size,
        20.0 as beside,
        format(
            'too few prompts: {} of the smaller class of {}, and the interval of the '
            || 'shared axis of {} reaches {:.2f} to either side',
            class_size, prompt_set, model, reach
        ) as cause
    from areas
    where class_size < 20 or reach > 0.15
    union all
    select
        study_id,
        prompt_set,
        model,
        3 as position,
        'no_signal' as premise,
        ['shared', 'not shared', 'break'] as stops,
        model as at_model,
        'native' as scorer,
        native,
        0.5 as beside,
        format(
            'the direction of {} itself is not shown to separate {} (AUROC {:.3f}, '
            || '{:.3f} to {:.3f})',
            model, prompt_set, native, native_lower, native_upper
        ) as cause
    from areas
    where native_lower <= 0.5
    union all
    -- The axis is made by all maps, so that one bad map is in the way of all models.
    select
        areas.study_id,
        areas.prompt_set,
        areas.model,
        4 as position,
        'map' as premise,
        ['not shared', 'break'] as stops,
        maps.model as at_model,
        null as scorer,
        maps.variance_ratio,
        0.8 as beside,
        format(
            'the alignment may not carry the direction of {}: benign prompts vary '
            || 'along it {:.2f} times as much as within the classes, mapping keeps '
            || '{:.2f} of its length, R2 {:.2f}',
            maps.model, maps.variance_ratio, maps.gain, maps.r2
        ) as cause
    from areas
    inner join maps using (study_id)
    where maps.variance_ratio < 0.8 or maps.gain < 0.75 or maps.r2 < 0.2
    union all
    select
        study_id,
        prompt_set,
        model,
        5 as position,
        'surface' as premise,
        case axis
            when 'leave_one_out' then ['shared']
            when 'native' then ['not shared', 'break']
            else []
        end as stops,
        model as at_model,
        scorer,
        estimate,
        estimate - difference as beside,
        coalesce(
            format(
                'without a model, the baseline {} has AUROC {:.3f} on {}; {} of {} has '
                || '{:.3f} and is not shown to exceed it',
                replace(baseline, '_', ' '),
                estimate - difference,
                prompt_set,
                replace(axis, '_', ' '),
                model,
                estimate
            ),
            'no surface baseline is stored: run the study again'
        ) as cause
    from surfaces
    where lower is null or lower <= 0
    union all
    select
        areas.study_id,
        areas.prompt_set,
        areas.model,
        6 as position,
        'no_agreement' as premise,
        ['break'] as stops,
        null as at_model,
        null as scorer,
        agreements.agreeing_count,
        agreements.model_count / 2 as beside,
        format(
            'the axis of the others is shown to work, or to agree beyond labels '
            || 'shuffled alike, in {} of {} models only',
            agreements.agreeing_count, agreements.model_count
        ) as cause
    from areas
    inner join agreements using (study_id, prompt_set)
    where agreements.agreeing_count <= agreements.model_count / 2
)

select * from final;
