-- One row per model, prompt set, layer, site, pooling and template: mean and variance
-- of its activations. Reads every vector that the filter leaves: name a model and a
-- layer.
--
-- total_variance: mean squared distance from the mean activation (population variance)
-- mean_share: |mean activation|^2 / mean |activation|^2; near 1 where all share a mean
-- class_gap: distance of the class means, null where a class is missing
-- class_share: variance explained by the class: between-class / total, labelled rows
create view v_layer_variance as
with
numbers as (
    select
        model,
        model_id,
        prompt_set,
        layer,
        site,
        pooling,
        template,
        is_positive,
        unnest(vector)::double as x,
        generate_subscripts(vector, 1) as dimension
    from v_activations
),

dimensions as (
    select
        model,
        model_id,
        prompt_set,
        layer,
        site,
        pooling,
        template,
        dimension,
        avg(x) as mean,
        var_pop(x) as variance,
        var_pop(x) filter (where is_positive is not null) as labelled_variance,
        avg(x) filter (where is_positive)
        - avg(x) filter (where not is_positive) as gap,
        count(x) filter (where is_positive) as positive_count,
        count(x) filter (where not is_positive) as negative_count
    from numbers
    group by all
)

select
    model,
    model_id,
    prompt_set,
    layer,
    site,
    pooling,
    template,
    sum(variance) as total_variance,
    sum(mean * mean) / nullif(sum(mean * mean + variance), 0) as mean_share,
    sqrt(sum(gap * gap)) as class_gap,
    sum(
        gap * gap * positive_count * negative_count
        / nullif(pow(positive_count + negative_count, 2), 0)
    )
    / nullif(sum(labelled_variance), 0) as class_share
from dimensions
group by all;
