-- One row per study, model, prompt set, scorer and warning: a reason not to read a
-- value of the study as evidence, with the two numbers compared. The premises of the
-- claims that fail are warnings (v_claim_premises).
--
-- scorer: the scorer of the AUROC; null where the warning is about the complete row of
--   the study
-- warning: the premise that fails; shuffled_labels, shuffled_alignment,
--   random_direction; reversed, cosine_alone; sign_undetermined: the directions of a
--   shared axis point apart and outweigh each other; rows_missing;
--   few_negatives: too few negative prompts for a false-positive rate of 1 %
-- metric_value: the AUROC (or count) that the warning is about
-- text: the warning in plain words
create view v_study_warnings as
with
-- The rows of `axes evaluate` name what they were fitted on, and are of no study.
evaluations as (
    select * from stg_evaluations
    where fitted_on is null
),

areas as (
    select * from evaluations
    where
        metric = 'auroc'
        and model is not null
        and replace(scorer, '_cross_validated', '') in (
            'native', 'universal', 'leave_one_out'
        )
        -- In sample the out-of-fold value stands for the model's own direction.
        and not (scorer = 'native' and is_in_sample)
),

final as (
    select
        areas.study_id,
        areas.model,
        areas.prompt_set,
        areas.scorer,
        replace(drawn.scorer, '_cross_validated', '') as warning,
        areas.estimate as metric_value,
        drawn.upper as compared_with,
        format(
            '{} of {} reaches AUROC {:.3f} on {}, and {:.3f} with {} (95th '
            || 'percentile): no signal is shown',
            areas.scorer,
            areas.model,
            areas.estimate,
            areas.prompt_set,
            drawn.upper,
            replace(replace(drawn.scorer, '_cross_validated', ''), '_', ' ')
        ) as text
    from areas
    inner join evaluations as drawn
        on
            areas.study_id = drawn.study_id
            and areas.model = drawn.model
            and areas.prompt_set = drawn.prompt_set
            and drawn.metric = 'auroc'
            and case areas.scorer
                when 'native_cross_validated'
                    then drawn.scorer = 'shuffled_labels_cross_validated'
                when 'universal'
                    then drawn.scorer in ('shuffled_alignment', 'random_direction')
                else false
            end
    where areas.estimate <= drawn.upper
    union all by name
    select
        study_id,
        model,
        prompt_set,
        scorer,
        'reversed' as warning,
        estimate as metric_value,
        0.5 as compared_with,
        format(
            '{} ranks the prompts of {} the wrong way round for {} (AUROC {:.3f}): '
            || 'see `axes diagnose {}`',
            scorer,
            prompt_set,
            model,
            estimate,
            model
        ) as text
    from areas
    where upper < 0.5
    union all by name
    select
        areas.study_id,
        areas.model,
        areas.prompt_set,
        areas.scorer,
        'cosine_alone' as warning,
        areas.estimate as metric_value,
        cosines.estimate as compared_with,
        format(
            'the cosine of {} with the universal axis is {:.2f}, but its AUROC on {} '
            || 'is {:.3f} ({:.3f} to {:.3f}): see `axes diagnose {}`',
            areas.model,
            cosines.estimate,
            areas.prompt_set,
            areas.estimate,
            areas.lower,
            areas.upper,
            areas.model
        ) as text
    from areas
    inner join evaluations as cosines
        on
            areas.study_id = cosines.study_id
            and areas.model = cosines.model
            and cosines.metric = 'cosine_universal'
    where
        areas.scorer = 'universal'
        and areas.lower <= 0.5
        and cosines.estimate > 0.5
    union all by name
    select
        areas.study_id,
        areas.model,
        areas.prompt_set,
        areas.scorer,
        'sign_undetermined' as warning,
        areas.estimate as metric_value,
        0.5 as compared_with,
        format(
            'the directions that the {} axis of {} is made of point apart and outweigh '
            || 'each other: AUROC {:.3f} on {} would be {:.3f} with the other sign',
            replace(areas.scorer, '_', '-'),
            areas.model,
            areas.estimate,
            areas.prompt_set,
            1 - areas.estimate
        ) as text
    from areas
    inner join axes using (axis_id)
    where
        areas.scorer in ('universal', 'leave_one_out')
        -- Their mean inner product with the axis is in proportion to the weights' sum.
        and abs(list_sum(json_extract(
            try_cast(axes.parameters as json), '$.weights'
        )::double[])) < 1e-6
    union all by name
    select
        study_id,
        model,
        prompt_set,
        'rows_missing' as warning,
        estimate as metric_value,
        0.0 as compared_with,
        format(
            '{:.0f} prompts of {} are missing for {}', estimate, prompt_set, model
        ) as text
    from evaluations
    where metric = 'missing_count' and estimate > 0
    union all by name
    select
        study_id,
        prompt_set,
        'few_negatives' as warning,
        min(negative_count) as metric_value,
        100.0 as compared_with,
        format(
            '{} has {} negative prompts, fewer than 100: too few to tell a '
            || 'true-positive rate at 1 % false positives',
            prompt_set,
            min(negative_count)
        ) as text
    from evaluations
    where metric = 'tpr_at_fpr_0.01' and negative_count < 100
    group by study_id, prompt_set
    union all by name
    select
        study_id,
        model,
        prompt_set,
        scorer,
        premise as warning,
        metric_value,
        compared_with,
        cause as text
    from v_claim_premises
    where coalesce(at_model, model) = model
)

select * from final;
