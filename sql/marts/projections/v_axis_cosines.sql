-- One row per ordered pair of different axes in one space (model, layer and site).
--
-- study_id: the last study that evaluated both; null without one
-- other_axis_id: the axis compared with (axes.axis_id)
-- axis_name: its name (axes.name)
-- other_axis_name: the other's name
-- other_kind: the other's kind
-- model: the model that it was fitted on, if one
-- other_model: the model that the other was fitted on, if one
-- cosine: of the two vectors; -1 is the same line with the classes swapped
create view v_axis_cosines as
with
of_one_study as (
    select
        studies.axis_id,
        other.axis_id as other_axis_id,
        arg_max(studies.study_id, studies.started_at) as study_id
    from v_study_axes as studies
    inner join v_study_axes as other using (study_id)
    group by studies.axis_id, other.axis_id
)

select
    axes.axis_id,
    other.axis_id as other_axis_id,
    of_one_study.study_id,
    axes.name as axis_name,
    other.name as other_axis_name,
    axes.kind,
    other.kind as other_kind,
    axes.fitted_model as model,
    other.fitted_model as other_model,
    axes.space_model,
    axes.layer,
    cosine(axes.vector, other.vector) as cosine
from stg_axes as axes
inner join stg_axes as other
    on
        axes.space_model_id = other.space_model_id
        and axes.layer = other.layer
        and axes.site = other.site
        and axes.axis_id != other.axis_id
left join of_one_study
    on
        axes.axis_id = of_one_study.axis_id
        and other.axis_id = of_one_study.other_axis_id;
