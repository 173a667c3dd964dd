-- One row per study and axis that it evaluated. Studies share axes: two studies of one
-- model and one set have the same native directions.
--
-- study_id: the study (v_studies.study_id)
-- is_last: the last study that evaluated the axis
create view v_study_axes as
select
    evaluations.study_id,
    evaluations.axis_id,
    any_value(studies.started_at) as started_at,
    row_number() over (
        partition by evaluations.axis_id
        order by any_value(studies.started_at) desc, evaluations.study_id asc
    ) = 1 as is_last
from stg_evaluations as evaluations
inner join v_studies as studies using (study_id)
where evaluations.axis_id is not null and evaluations.fitted_on is null
group by evaluations.study_id, evaluations.axis_id;
