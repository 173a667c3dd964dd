-- One row per study, model and prompt set: the study table. The figures of a model on
-- itself are null for any set but the one that the directions were fitted on.
--
-- model: the evaluated model
-- native: AUROC of the model's native direction
-- universal: AUROC of the universal axis
-- universal_min: smallest value as one setting after another is varied
--   (v_sensitivity); null where that was not measured
-- universal_max: largest value as one setting after another is varied
-- moved_most_by: the choice with which it moves most
-- leave_one_out: AUROC of the axis made without this model
-- native_cross_validated: AUROC of the native direction out of fold, folds grouped by
--   pair
-- universal_cross_validated: the same of the universal axis
-- leave_one_out_cross_validated: the same of the axis made without this model
-- null_in_sample: 95th percentile of native for directions fitted on shuffled labels
-- null_cross_validated: the same of native_cross_validated
-- control_task: mean AUROC of native_cross_validated's method on control tasks, random
--   classes of the prompts' first words; null without enough words that recur
-- selectivity: native_cross_validated minus control_task (Hewitt and Liang 2019)
-- selectivity_lower: lower end of its 95 % interval, over prompts and control tasks
-- universal_by_source: mean AUROC of the universal axis over sources, each left out of
--   its fit; v_source_transfer has every source, category and length
-- universal_by_category: the same over categories
-- universal_by_length: the same over the shorter and the longer half of the prompts
-- universal_paraphrased: AUROC on paraphrases, the pair left out of the fit
-- pairs_in_order: share of matched pairs that the universal axis ranks right, out of
--   fold where it was fitted on them
-- universal_tpr_at_1_percent: share of positive prompts that the universal axis finds
--   at 1 % false positives, out of fold where it was fitted on them
-- universal_tpr_at_1_percent_lower: lower end of its 95 % interval; null where fewer
--   than 100 negative prompts cannot tell such a rate
-- universal_fold_min: smallest of the AUROCs of ten draws of folds, of which
--   universal_cross_validated is the mean
-- universal_fold_max: the largest of them
-- best_baseline: what does best of the prompts alone, without a model
-- best_baseline_auroc: its AUROC, out of fold, folds grouped by pair
-- bag_of_words: AUROC of word counts, out of fold, folds grouped by pair
-- prompt_length: AUROC of the length in characters
-- cosine_universal: of the aligned direction with the universal axis
-- cosine_reference: of the aligned direction with the reference's native direction
-- cosine_leave_one_out: of the aligned direction with the axis made of the other models
-- alignment_r2: 1 - SSE/SST over all dimensions, held-out alignment rows
-- ridge_lambda: penalty of the alignment; null for the reference, mapped by identity
create view v_study as
with
per_set as (
    select
        study_id,
        model,
        prompt_set,
        any_value(layer) as layer,
        bool_or(is_in_sample) as is_in_sample,
        pick(estimate, scorer, 'native') as native,
        pick(lower, scorer, 'native') as native_lower,
        pick(upper, scorer, 'native') as native_upper,
        pick(estimate, scorer, 'universal') as universal,
        pick(lower, scorer, 'universal') as universal_lower,
        pick(upper, scorer, 'universal') as universal_upper,
        pick(estimate, scorer, 'leave_one_out') as leave_one_out,
        pick(estimate, scorer, 'native_cross_validated') as native_cross_validated,
        pick(
            estimate, scorer, 'universal_cross_validated'
        ) as universal_cross_validated,
        pick(
            estimate, scorer, 'leave_one_out_cross_validated'
        ) as leave_one_out_cross_validated,
        pick(upper, scorer, 'shuffled_labels') as null_in_sample,
        pick(upper, scorer, 'shuffled_labels_cross_validated') as null_cross_validated,
        pick(estimate, scorer, 'control_task_cross_validated') as control_task,
        native_cross_validated - control_task as selectivity,
        -- The interval of a difference from two intervals (Zou and Donner 2008).
        selectivity - sqrt(
            (native_cross_validated - pick(lower, scorer, 'native_cross_validated')) ^ 2
            + (pick(upper, scorer, 'control_task_cross_validated') - control_task) ^ 2
        ) as selectivity_lower,
        selectivity + sqrt(
            (pick(upper, scorer, 'native_cross_validated') - native_cross_validated) ^ 2
            + (control_task - pick(lower, scorer, 'control_task_cross_validated')) ^ 2
        ) as selectivity_upper
    from stg_evaluations
    where metric = 'auroc' and model is not null and fitted_on is null
    group by study_id, model, prompt_set
),

baselines as (
    select
        study_id,
        prompt_set,
        arg_max(scorer, estimate order by scorer) as best_baseline,
        max(estimate) as best_baseline_auroc,
        pick(estimate, scorer, 'bag_of_words') as bag_of_words,
        pick(estimate, scorer, 'prompt_length') as prompt_length
    from stg_evaluations
    where metric = 'auroc' and model is null
    group by study_id, prompt_set
),

-- Of the two scorers the last by name is out of fold.
best as (
    select
        study_id,
        model,
        prompt_set,
        arg_max(estimate, scorer order by scorer) filter (
            where metric = 'pairs_in_order'
        ) as pairs_in_order,
        arg_max(estimate, scorer order by scorer) filter (
            where metric = 'tpr_at_fpr_0.01'
        ) as universal_tpr_at_1_percent,
        arg_max(lower, scorer order by scorer) filter (
            where metric = 'tpr_at_fpr_0.01'
        ) as universal_tpr_at_1_percent_lower,
        arg_max(upper, scorer order by scorer) filter (
            where metric = 'tpr_at_fpr_0.01'
        ) as universal_tpr_at_1_percent_upper,
        pick(lower, metric, 'auroc_by_fold_draw') as universal_fold_min,
        pick(upper, metric, 'auroc_by_fold_draw') as universal_fold_max
    from stg_evaluations
    where scorer in ('universal', 'universal_cross_validated')
    group by study_id, model, prompt_set
),

shifts as (
    select
        study_id,
        model,
        prompt_set,
        avg(universal) filter (where judged_on like 'source %') as universal_by_source,
        avg(universal) filter (
            where judged_on like 'category %'
        ) as universal_by_category,
        avg(universal) filter (where judged_on like 'length %') as universal_by_length,
        pick(universal, fitted_on, prompt_set) as universal_paraphrased
    from v_source_transfer
    group by study_id, model, prompt_set
),

per_model as (
    select
        study_id,
        model,
        pick(estimate, metric, 'cosine_universal') as cosine_universal,
        pick(estimate, metric, 'cosine_reference') as cosine_reference,
        pick(estimate, (metric, scorer), ('cosine_leave_one_out', 'aligned'))
            as cosine_leave_one_out,
        pick(estimate, metric, 'r2_held_out') as alignment_r2,
        pick(estimate, metric, 'ridge_lambda') as ridge_lambda
    from stg_evaluations
    where model is not null
    group by study_id, model
),

moved as (
    select
        study_id,
        model,
        prompt_set,
        min(metric_min) as universal_min,
        max(metric_max) as universal_max,
        arg_max(setting, spread order by setting) as moved_most_by
    from v_sensitivity
    where metric = 'universal'
    group by study_id, model, prompt_set
)

select
    per_set.*,
    moved.* exclude (study_id, model, prompt_set),
    best.* exclude (study_id, model, prompt_set),
    shifts.* exclude (study_id, model, prompt_set),
    baselines.* exclude (study_id, prompt_set),
    per_model.* exclude (study_id, model)
from per_set
inner join per_model using (study_id, model)
left join baselines using (study_id, prompt_set)
left join best using (study_id, model, prompt_set)
left join shifts using (study_id, model, prompt_set)
left join moved using (study_id, model, prompt_set);
