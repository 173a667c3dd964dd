-- The angle between a model's own directions by two poolings of the same prompts, in
-- degrees, at the layer of the study: 90 would be nothing in common.
with
directions as (
    select
        axes.axis_id,
        axes.pooling
    from axes
    inner join v_study as results
        on
            axes.fitted_model = results.model
            and axes.prompt_set = results.prompt_set
            and axes.layer = results.layer
    where
        axes.kind = 'native'
        and axes.method = 'mean_diff'
        and axes.template = 'raw'
        and axes.prompt_set = 'demo_safety'
)

select distinct
    cosines.model,
    directions.pooling,
    others.pooling as other_pooling,
    degrees(acos(cosines.cosine)) as angle,
    cosines.cosine
from v_axis_cosines as cosines
inner join directions using (axis_id)
inner join directions as others on cosines.other_axis_id = others.axis_id
where directions.pooling < others.pooling
order by cosines.model, directions.pooling, others.pooling;
