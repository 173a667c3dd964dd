-- One row per k-way study, model and pair of concepts: the angle between their axes.
--
-- study_id: the k-way evaluation (`axes study --concepts`)
-- scorer: native (the model's axes in its space) or universal (the shared axes)
-- concept: prompt set of an axis
-- other_concept: prompt set of the other
-- cosine: of the two axes
-- angle: in degrees; 90 is no overlap
-- null_lower: 5th percentile of the cosine of two axes of nothing: of items without
--   their concept's mean, with random signs
-- null_upper: its 95th percentile
-- p_value: two-sided, of no overlap
-- p_value_adjusted: corrected for all pairs of concepts in the space (Holm)
create view v_concept_overlap as
select
    study_id,
    scorer,
    model,
    fitted_on as concept,
    judged_on as other_concept,
    pick(estimate, metric, 'concept_cosine') as cosine,
    degrees(acos(pick(estimate, metric, 'concept_cosine'))) as angle,
    pick(lower, metric, 'concept_cosine_shuffled') as null_lower,
    pick(upper, metric, 'concept_cosine_shuffled') as null_upper,
    pick(p_value, metric, 'concept_cosine') as p_value,
    pick(p_value_adjusted, metric, 'concept_cosine') as p_value_adjusted
from stg_evaluations
where metric in ('concept_cosine', 'concept_cosine_shuffled')
group by study_id, scorer, model, fitted_on, judged_on;
