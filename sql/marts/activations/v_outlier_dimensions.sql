-- One row per model, layer, site, pooling, template and dimension with an outlying
-- scale: its root mean square is over five times the median one (massive activations:
-- Sun et al. 2024, arXiv 2402.17762). Such dimensions dominate means, cosines and
-- ridge. Reads every vector that the filter leaves: name a model and a layer.
--
-- dimension: zero-based index in the vector
-- place: 1 is the largest root mean square of this layer
-- mean: mean over the stored prompts
-- root_mean_square: root of the mean square over the stored prompts
-- ratio: root_mean_square over the median of all dimensions
-- share: of the mean squared norm that lies in this dimension
create view v_outlier_dimensions as
with
numbers as (
    select
        model,
        model_id,
        layer,
        site,
        pooling,
        template,
        unnest(vector)::double as x,
        generate_subscripts(vector, 1) - 1 as dimension
    from stg_activations
),

dimensions as (
    select
        model,
        model_id,
        layer,
        site,
        pooling,
        template,
        dimension,
        avg(x) as mean,
        avg(x * x) as mean_square
    from numbers
    group by model, model_id, layer, site, pooling, template, dimension
),

compared as (
    select
        *,
        row_number() over (
            together
            order by mean_square desc, dimension asc
        ) as place,
        median(sqrt(mean_square)) over together as typical,
        sum(mean_square) over together as total
    from dimensions
    window
        together as (partition by model, model_id, layer, site, pooling, template)
)

select
    model,
    model_id,
    layer,
    site,
    pooling,
    template,
    dimension,
    place,
    mean,
    sqrt(mean_square) as root_mean_square,
    sqrt(mean_square) / nullif(typical, 0) as ratio,
    mean_square / nullif(total, 0) as share
from compared
where sqrt(mean_square) > 5 * typical;
