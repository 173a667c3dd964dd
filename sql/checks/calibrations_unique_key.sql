-- Calibrations that are there more than once.
select
    calibration_id,
    count(*) as copies
from stg_calibrations
group by calibration_id
having count(*) > 1;
