-- One row per transfer study, method, model that a threshold comes from and model that
-- it is applied to: the results of `axes transfer`. Intervals are 95 %, by bootstrap,
-- those of losses and shifts paired.
--
-- method: uncalibrated (projections as they are) or the calibration of both models
-- fitted_on: the model whose calibration rows the threshold was chosen on
-- model: the model that it is applied to
-- is_own: whether both are one model: the best that a threshold can do for it
-- balanced_accuracy: mean of the share of each class that is classified correctly
-- accuracy_loss: balanced accuracy of the model's threshold minus this one's
-- accuracy_loss_p: two-sided p-value, Holm-adjusted over the pairs of a method
-- false_positive_rate: share of negative prompts called positive
-- false_positive_shift: the same minus that of the model's threshold
-- false_positive_shift_p: two-sided p-value, Holm-adjusted over the pairs of a method
-- is_in_sample: whether the axis was fitted on any of the evaluation prompts
-- is_carried_over: the threshold transfers: complete intervals within a loss of 0.05
--   and within a shift of 0.1 either way
-- is_failing: it does not, and loses accuracy or shifts the false-positive rate at the
--   level 0.05
create view v_threshold_transfer as
select
    study_id,
    axis_id,
    prompt_set,
    scorer as method,
    fitted_on,
    model,
    pick(estimate, metric, 'balanced_accuracy') as balanced_accuracy,
    pick(lower, metric, 'balanced_accuracy') as balanced_accuracy_lower,
    pick(upper, metric, 'balanced_accuracy') as balanced_accuracy_upper,
    pick(estimate, metric, 'accuracy_loss') as accuracy_loss,
    pick(lower, metric, 'accuracy_loss') as accuracy_loss_lower,
    pick(upper, metric, 'accuracy_loss') as accuracy_loss_upper,
    pick(p_value_adjusted, metric, 'accuracy_loss') as accuracy_loss_p,
    pick(estimate, metric, 'false_positive_rate') as false_positive_rate,
    pick(estimate, metric, 'false_positive_shift') as false_positive_shift,
    pick(lower, metric, 'false_positive_shift') as false_positive_shift_lower,
    pick(upper, metric, 'false_positive_shift') as false_positive_shift_upper,
    pick(p_value_adjusted, metric, 'false_positive_shift')
        as false_positive_shift_p,
    any_value(positive_count) as positive_count,
    any_value(negative_count) as negative_count,
    fitted_on = model as is_own,
    bool_or(is_in_sample) as is_in_sample,
    coalesce(
        accuracy_loss_upper <= 0.05
        and false_positive_shift_lower >= -0.1
        and false_positive_shift_upper <= 0.1,
        false
    ) as is_carried_over,
    coalesce(
        not is_carried_over
        and (
            (accuracy_loss > 0 and accuracy_loss_p < 0.05)
            or false_positive_shift_p < 0.05
        ),
        false
    ) as is_failing
from stg_evaluations
where
    metric in (
        'balanced_accuracy',
        'false_positive_rate',
        'false_positive_shift',
        'accuracy_loss'
    )
    and fitted_on is not null
group by study_id, axis_id, prompt_set, scorer, fitted_on, model;
