-- Figures of drift on axes that are not there.
select
    figures.drift_id,
    figures.axis_id,
    count(*) as figure_count
from stg_drift_figures as figures
left join stg_axes as axes using (axis_id)
where axes.axis_id is null
group by figures.drift_id, figures.axis_id;
