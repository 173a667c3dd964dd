-- One row per model, prompt set, layer, site, pooling and template: norms, variance and
-- the AUROC of the model's native direction. Reads vectors: name a model; v_layer_norms
-- and v_auroc have the rest without reading vectors.
--
-- prompt_set: the name the set was imported under
-- native_axis_id: the model's direction fitted on this set and layer, null without one
-- native_auroc: its AUROC on this set: in sample, so high in many dimensions
-- direction_share: variance explained by it: of its projections / total_variance
create view v_layer_profiles as
with
axes as (
    select
        min(axis_id) as axis_id,
        space_model_id as model_id,
        prompt_set,
        layer,
        site,
        pooling,
        template
    from stg_axes
    where kind = 'native'
    group by all
),

projections as (
    select * from v_projections
    where is_positive is not null
),

judged as (
    select
        axes.*,
        auroc(projections.projection, projections.is_positive) as auroc,
        var_pop(projections.projection) as variance
    from axes
    inner join projections using (axis_id, model_id, prompt_set)
    group by all
)

select
    norms.model,
    norms.model_id,
    norms.prompt_set,
    norms.layer,
    norms.site,
    norms.pooling,
    norms.template,
    judged.axis_id as native_axis_id,
    norms.depth_fraction,
    norms.row_count,
    norms.mean_norm,
    norms.median_norm,
    norms.norm_auroc,
    variance.total_variance,
    variance.mean_share,
    variance.class_gap,
    variance.class_share,
    judged.variance / nullif(variance.total_variance, 0) as direction_share,
    judged.auroc as native_auroc
from v_layer_norms as norms
inner join v_layer_variance as variance
    using (model, model_id, prompt_set, layer, site, pooling, template)
left join judged using (model_id, prompt_set, layer, site, pooling, template);
