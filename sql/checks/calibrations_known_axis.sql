-- Calibrations of axes or models that are not stored.
select
    calibrations.calibration_id,
    calibrations.axis_id,
    calibrations.model_id
from stg_calibrations as calibrations
left join stg_axes as axes using (axis_id)
left join stg_models as models using (model_id)
where axes.axis_id is null or models.model_id is null;
