-- Judged interventions along axes that are not there.
select
    interventions.experiment_id,
    interventions.axis_id
from stg_interventions as interventions
left join stg_axes as axes using (axis_id)
where axes.axis_id is null
group by all;
