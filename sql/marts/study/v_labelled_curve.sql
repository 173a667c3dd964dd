-- One row per transfer study, method, model and count of labelled prompts: accuracy of
-- a threshold by the number of the model's labelled prompts. Means over draws.
--
-- method: threshold (chosen on the draw) or z_score (chosen on the other models, on the
--   scale of the draw's mean and deviation, which needs no labels of this model)
-- labelled_count: approximate number of prompts in the draw: groups are kept together
-- balanced_accuracy: mean over the draws, on the evaluation prompts
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
