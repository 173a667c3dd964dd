-- One row per k-way study, scorer and model: how many items are predicted as their
-- concept, next to chance and to the same of word counts.
--
-- study_id: the k-way evaluation (`axes study --concepts`)
-- scorer: native (the model's axes), leave_one_out (axes of the other models), or a
--   baseline, which has no model
-- accuracy: mean over concepts of the share predicted right
-- concept_count: number of concepts
-- chance: one over it
-- null_95: 95th percentile of accuracies on concepts dealt again among the items
-- p_value: share of these at least as large
-- best_baseline: the surface baseline with the largest accuracy
-- best_baseline_accuracy: its accuracy
create view v_concept_accuracy as
with
accuracies as (
    select
        study_id,
        scorer,
        model,
        pick(estimate, metric, 'kway_accuracy') as accuracy,
        pick(lower, metric, 'kway_accuracy') as accuracy_lower,
        pick(upper, metric, 'kway_accuracy') as accuracy_upper,
        pick(upper, metric, 'kway_accuracy_shuffled') as null_95,
        pick(p_value, metric, 'kway_accuracy') as p_value,
        any_value(positive_count) as item_count
    from stg_evaluations
    where metric in ('kway_accuracy', 'kway_accuracy_shuffled')
    group by study_id, scorer, model
),

concepts as (
    select
        study_id,
        count(distinct concept) as concept_count
    from v_confusion
    group by study_id
),

baselines as (
    select
        study_id,
        arg_max(scorer, accuracy order by scorer) as best_baseline,
        max(accuracy) as best_baseline_accuracy
    from accuracies
    where model is null
    group by study_id
)

select
    accuracies.*,
    concepts.concept_count,
    1 / concepts.concept_count as chance,
    baselines.best_baseline,
    baselines.best_baseline_accuracy
from accuracies
inner join concepts using (study_id)
left join baselines using (study_id);
