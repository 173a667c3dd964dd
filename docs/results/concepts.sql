-- Which of six concepts differs within a pair, by alignment and model: accuracy of the
-- model's own axes out of fold, and of axes of the other models only, next to that of
-- the best word counts. `native_auroc` and `leave_one_out_auroc` are means over the
-- concepts, and `transferred` counts those that the other models' axes recognise.
with
studies as (
    select
        evaluations.study_id,
        evaluations.parameters ->> '$.alignment' as alignment
    from evaluations
    inner join runs on evaluations.run_id = runs.run_id
    where
        evaluations.metric = 'kway_accuracy'
        and evaluations.parameters ->> '$.label' = 'demo'
    qualify
        row_number() over (
            partition by alignment
            order by runs.started_at desc, evaluations.study_id asc
        ) = 1
),

areas as (
    select
        study_id,
        model,
        avg(native) as native_auroc,
        avg(leave_one_out) as leave_one_out_auroc,
        avg(best_baseline_auroc) as best_baseline_auroc,
        count_if(transfers) as transferred
    from v_concepts
    group by study_id, model
)

select
    studies.alignment,
    own.model,
    own.concept_count as concepts,
    own.accuracy as native,
    own.accuracy_lower as native_lower,
    own.accuracy_upper as native_upper,
    others.accuracy as leave_one_out,
    others.accuracy_lower as leave_one_out_lower,
    others.accuracy_upper as leave_one_out_upper,
    others.null_95,
    words.accuracy as baseline,
    words.accuracy_lower as baseline_lower,
    words.accuracy_upper as baseline_upper,
    areas.native_auroc,
    areas.leave_one_out_auroc,
    areas.best_baseline_auroc,
    areas.transferred
from studies
inner join v_concept_accuracy as own
    on studies.study_id = own.study_id and own.scorer = 'native'
inner join v_concept_accuracy as others
    on
        own.study_id = others.study_id
        and own.model = others.model
        and others.scorer = 'leave_one_out'
inner join v_concept_accuracy as words
    on own.study_id = words.study_id and own.best_baseline = words.scorer
inner join areas on own.study_id = areas.study_id and own.model = areas.model
order by studies.alignment desc, own.model asc;
