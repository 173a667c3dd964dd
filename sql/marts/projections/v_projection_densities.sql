-- One row per axis, model, labelled prompt set, class and grid point: density of the
-- class's projections at that point. A Gaussian kernel of Silverman's width (1986, 0.9
-- of the smaller of the deviation and the interquartile range / 1.34, times n ** -0.2)
-- on a grid of 64 points that both classes share, three widths beyond all rows. Classes
-- whose projections are all equal have no rows. Compare within one axis and model only.
--
-- label: the label of the class; positive or negative where it has several
-- row_count: prompts of the class
-- projection: the grid point
-- density: share of the class per unit of projection
-- is_in_sample: whether the axis was fitted on any of these prompts
create view v_projection_densities as
with
projections as (
    select * from v_projections
    where is_positive is not null
),

classes as (
    select
        axis_id,
        any_value(axis_name) as axis_name,
        any_value(kind) as kind,
        any_value(model) as model,
        model_id,
        prompt_set,
        any_value(layer) as layer,
        is_positive,
        case
            when count(distinct label) = 1 then any_value(label)
            when is_positive then 'positive'
            else 'negative'
        end as label,
        count(*) as row_count,
        list(projection order by projection) as placed,
        0.9 * pow(count(*), -0.2) * least(
            stddev_samp(projection),
            nullif(
                quantile_cont(projection, 0.75) - quantile_cont(projection, 0.25), 0
            ) / 1.34
        ) as width,
        bool_or(is_in_sample) as is_in_sample
    from projections
    group by axis_id, model_id, prompt_set, is_positive
),

bounded as (
    select
        *,
        min(placed[1] - 3 * width) over classes_together as lowest,
        max(placed[-1] + 3 * width) over classes_together as highest
    from classes
    where width > 0
    window classes_together as (partition by axis_id, model_id, prompt_set)
),

gridded as (
    select
        *,
        lowest + (highest - lowest) * unnest(range(64)) / 63 as projection
    from bounded
)

select
    axis_id,
    axis_name,
    kind,
    model,
    model_id,
    prompt_set,
    layer,
    label,
    row_count,
    projection,
    list_sum(
        list_transform(
            placed,
            lambda placed_at: exp(-pow((projection - placed_at) / width, 2) / 2)
        )
    ) / (row_count * width * sqrt(2 * pi())) as density,
    is_positive,
    is_in_sample
from gridded;
