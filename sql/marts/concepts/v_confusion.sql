-- One row per k-way study, scorer, model, concept and predicted concept: the share of
-- the concept's items that were predicted so, each by axes of other folds. An item is a
-- positive prompt less its negative counterpart.
--
-- study_id: the k-way evaluation (`axes study --concepts`)
-- scorer: native (the model's axes), leave_one_out (axes of the other models), or a
--   baseline, which has no model
-- concept: prompt set of the items
-- predicted: prompt set of the axis along which the item lies farthest
-- share: share of the concept's items
-- item_count: items of the concept
-- is_right: whether the prediction is the concept
create view v_confusion as
select
    study_id,
    scorer,
    model,
    judged_on as concept,
    fitted_on as predicted,
    estimate as share,
    lower as share_lower,
    upper as share_upper,
    positive_count as item_count,
    fitted_on = judged_on as is_right
from stg_evaluations
where metric = 'confusion';
