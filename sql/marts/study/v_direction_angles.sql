-- One row per model, layer, prompt set and two choices of pooling and template.
-- The angle between the model's own directions by both, of the same rows and method.
--
-- direction: the method that both were fitted by
-- axis_id: the axis by `pooling` and `template`
-- other_axis_id: the axis by `other_pooling` and `other_template`
-- other_pooling: the pooling of the other axis
-- other_template: the template of the other axis
-- angle: in degrees; 0 is the same direction, 90 nothing in common
-- cosine: of the two vectors
create view v_direction_angles as
select
    axes.axis_id,
    other.axis_id as other_axis_id,
    axes.fitted_model as model,
    axes.space_model_id as model_id,
    axes.prompt_set,
    axes.method as direction,
    axes.site,
    axes.pooling,
    other.pooling as other_pooling,
    axes.template,
    other.template as other_template,
    axes.layer,
    degrees(acos(greatest(-1, least(1, cosine(axes.vector, other.vector))))) as angle,
    cosine(axes.vector, other.vector) as cosine
from stg_axes as axes
inner join stg_axes as other
    on
        axes.space_model_id = other.space_model_id
        and axes.fitted_model = other.fitted_model
        and axes.layer = other.layer
        and axes.site = other.site
        and axes.prompt_set = other.prompt_set
        and axes.row_set_hash = other.row_set_hash
        and axes.method = other.method
        and (axes.pooling, axes.template) < (other.pooling, other.template)
where axes.kind = 'native' and other.kind = 'native';
