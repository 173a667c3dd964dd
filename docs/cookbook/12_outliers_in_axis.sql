-- How much of each direction is in the dimension that dominates its layer?
-- A direction that is mostly an outlier dimension says little about the concept.
with
largest as (
    select
        model_id,
        layer,
        dimension
    from v_outlier_dimensions
    where
        place = 1
        and (
            (model = 'smollm2-135m' and layer = 23)
            or (model = 'gemma3-270m' and layer = 14)
            or (model = 'qwen2.5-coder-0.5b' and layer = 18)
        )
)

select
    axes.fitted_model as model,
    axes.layer,
    largest.dimension,
    pow(axes.vector[largest.dimension + 1], 2)::decimal(9, 3) as share_of_direction
from axes
inner join largest
    on axes.space_model_id = largest.model_id and axes.layer = largest.layer
where axes.kind = 'native'
order by model;
