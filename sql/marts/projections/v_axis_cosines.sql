-- One row per ordered pair of different axes in one space (model, layer and site).
--
-- study_id: the last study of both axes; null where they differ in it
-- other_axis_id: the axis compared with (axes.axis_id)
-- axis_name: its name (axes.name)
-- other_axis_name: the other's name
-- other_kind: the other's kind
-- model: the model that it was fitted on, if one
-- other_model: the model that the other was fitted on, if one
-- cosine: of the two vectors; -1 is the same line with the classes swapped
create view v_axis_cosines as
select
    axes.axis_id,
    other.axis_id as other_axis_id,
    other_study.study_id,
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
left join v_study_axes as study
    on axes.axis_id = study.axis_id and study.is_last
left join v_study_axes as other_study
    on
        other.axis_id = other_study.axis_id
        and other_study.is_last
        and study.study_id = other_study.study_id;
