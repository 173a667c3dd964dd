-- What was the universal axis computed from?
select
    axes.name,
    axes.method,
    axes.space_model,
    axes.layer,
    len(axes.source_axis_ids) as directions,
    axes.prompt_set,
    axes.positive_count,
    axes.negative_count,
    runs.command,
    runs.seed
from axes
inner join runs on axes.run_id = runs.run_id
inner join v_study_axes as studies on axes.axis_id = studies.axis_id
where studies.study_id = latest_study() and axes.kind = 'universal'
order by axes.name;
