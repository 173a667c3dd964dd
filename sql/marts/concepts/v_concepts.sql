-- One row per k-way study, model and concept: whether its items are predicted as this
-- concept, by axes of this model and by those of the others.
--
-- study_id: the k-way evaluation (`axes study --concepts`)
-- concept: prompt set of the concept
-- recall: share of its items predicted right by the model's axes
-- recall_leave_one_out: share predicted right by axes of the other models
-- recall_baseline: the same of the study's most accurate surface baseline
-- transfers: whether the lower end of recall_leave_one_out is above chance
-- native: AUROC of the model's direction out of fold, in the concept's study
-- leave_one_out: AUROC of the axis made without this model
-- best_baseline_auroc: AUROC of the best baseline on the concept's prompts
-- concept_study_id: the study of this concept alone
create view v_concepts as
with
entries as (
    select
        study_id,
        unnest(map_entries(cast(parameters -> '$.concepts' as map (varchar, varchar))))
            as entry
    from stg_evaluations
    where metric = 'kway_accuracy' and scorer = 'native'
),

studies as (
    select distinct
        entries.study_id,
        entry.key as concept,
        entry.value as concept_study_id
    from entries
),

recalls as (
    select
        study_id,
        model,
        concept,
        pick(share, scorer, 'native') as recall,
        pick(share_lower, scorer, 'native') as recall_lower,
        pick(share_upper, scorer, 'native') as recall_upper,
        pick(share, scorer, 'leave_one_out') as recall_leave_one_out,
        pick(share_lower, scorer, 'leave_one_out') as recall_leave_one_out_lower,
        pick(share_upper, scorer, 'leave_one_out') as recall_leave_one_out_upper
    from v_confusion
    where is_right and model is not null
    group by study_id, model, concept
)

select
    recalls.*,
    baselines.share as recall_baseline,
    recalls.recall_leave_one_out_lower > accuracies.chance as transfers,
    held_out.native,
    held_out.leave_one_out,
    study.best_baseline_auroc,
    studies.concept_study_id
from recalls
inner join studies using (study_id, concept)
inner join v_concept_accuracy as accuracies
    on
        recalls.study_id = accuracies.study_id
        and recalls.model = accuracies.model
        and accuracies.scorer = 'native'
left join v_confusion as baselines
    on
        recalls.study_id = baselines.study_id
        and recalls.concept = baselines.concept
        and accuracies.best_baseline = baselines.scorer
        and baselines.is_right
left join v_held_out as held_out
    on
        studies.concept_study_id = held_out.study_id
        and recalls.model = held_out.model
        and recalls.concept = held_out.prompt_set
left join v_study as study
    on
        studies.concept_study_id = study.study_id
        and recalls.model = study.model
        and recalls.concept = study.prompt_set;
