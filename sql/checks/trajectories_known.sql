-- Trajectories of axes or completions that are not stored.
select
    trajectories.drift_id,
    trajectories.axis_id,
    trajectories.generation_id
from stg_trajectories as trajectories
left join stg_axes as axes using (axis_id)
left join stg_generations as generations using (model, generation_id)
where axes.axis_id is null or generations.generation_id is null;
