-- One row per axis, model and prompt in a prompt set.
-- Compare projections within one axis and model only.
--
-- study_id: the last study that evaluated the axis; null without one
-- axis_name: its name (axes.name)
-- kind: native (the model's own direction), universal or leave_one_out (after the
--   model's alignment), ...
-- prompt_set: the set of the prompt
-- is_in_sample: the axis was fitted on this prompt, whatever set it is read from
--   (leave_one_out leaves out a model, not the prompts)
create view v_projections as
select
    projections.axis_id,
    studies.study_id,
    axes.name as axis_name,
    axes.kind,
    axes.method,
    projections.model,
    projections.model_id,
    prompts.prompt_set,
    projections.prompt_id,
    prompts.pair_id,
    projections.layer,
    axes.template,
    prompts.text,
    prompts.source,
    prompts.category,
    prompts.split,
    prompts.label,
    prompts.position,
    projections.projection,
    prompts.is_positive,
    fitted_on.prompt_id is not null as is_in_sample
from stg_projections as projections
inner join stg_axes as axes using (axis_id)
inner join v_prompts as prompts using (prompt_id)
left join v_study_axes as studies
    on projections.axis_id = studies.axis_id and studies.is_last
left join stg_prompts as fitted_on
    on
        axes.prompt_set = fitted_on.prompt_set
        and projections.prompt_id = fitted_on.prompt_id;
