-- One row per transfer study, method, model and count of labelled prompts: how good a
-- threshold is by how many of the model's own prompts it takes. Means over draws.
--
-- method: threshold (chosen on the draw) or z_score (chosen on the other models, on the
--   scale of the draw's mean and deviation, which needs no labels of this model)
-- labelled_count: prompts of the draw, about: groups are drawn whole
-- balanced_accuracy: mean over the draws, on the judged prompts
-- balanced_accuracy_lower: 2.5th percentile of the draws
-- balanced_accuracy_upper: 97.5th percentile of the draws
create view v_labelled_curve as
select
    study_id,
    axis_id,
    prompt_set,
    scorer as method,
    model,
    component as labelled_count,
    estimate as balanced_accuracy,
    lower as balanced_accuracy_lower,
    upper as balanced_accuracy_upper
from stg_evaluations
where metric = 'balanced_accuracy_by_labelled';
