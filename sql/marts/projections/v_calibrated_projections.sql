-- One row per calibration and prompt in a prompt set: the model's projection on the
-- common scale. Unlike projections, probabilities of one axis and method compare across
-- models.
--
-- prompt_set: the set of the prompt
-- probability: the projection through the calibration; of platt and isotonic the chance
--   of the positive class at the calibration rows' balance, of quantile and z_score a
--   common scale only
-- threshold_probability: the same on the common scale
-- is_predicted_positive: whether the projection is at or above the threshold
-- is_calibration_row: the calibration was fitted on this prompt: evaluate nothing on it
create view v_calibrated_projections as
with
fitted_on as (
    select
        calibration_id,
        unnest(prompt_ids) as prompt_id
    from stg_calibrations
)

select
    calibrations.calibration_id,
    projections.axis_id,
    projections.axis_name,
    projections.kind,
    projections.model,
    projections.model_id,
    calibrations.method,
    calibrations.target,
    projections.prompt_set,
    projections.prompt_id,
    projections.layer,
    projections.projection,
    calibrated(
        projections.projection, calibrations.parameters
    ) as probability,
    calibrations.threshold,
    calibrated(
        calibrations.threshold, calibrations.parameters
    ) as threshold_probability,
    projections.is_positive,
    projections.projection >= calibrations.threshold as is_predicted_positive,
    projections.is_in_sample,
    fitted_on.prompt_id is not null as is_calibration_row
from v_projections as projections
inner join stg_calibrations as calibrations using (axis_id, model_id)
left join fitted_on
    on
        calibrations.calibration_id = fitted_on.calibration_id
        and projections.prompt_id = fitted_on.prompt_id;
