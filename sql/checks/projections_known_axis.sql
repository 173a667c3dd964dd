-- Projections on axes that are not there.
select
    projections.axis_id,
    count(*) as projection_count
from stg_projections as projections
left join stg_axes as axes using (axis_id)
where axes.axis_id is null
group by projections.axis_id;
