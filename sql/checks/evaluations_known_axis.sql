-- Figures of axes that are not there.
select
    evaluations.study_id,
    evaluations.axis_id,
    count(*) as figure_count
from stg_evaluations as evaluations
left join stg_axes as axes using (axis_id)
where evaluations.axis_id is not null and axes.axis_id is null
group by evaluations.study_id, evaluations.axis_id;
