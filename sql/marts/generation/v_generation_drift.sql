-- One row per axis, layer and completion, in each prompt set of its prompt: how the
-- projection moves while the model generates.
--
-- first_projection: at step 0
-- last_projection: at the last step
-- mean_projection: over all steps
-- highest_projection: the largest of all steps
-- highest_step: the first step where it is the largest
-- highest_token: the token at highest_step
-- largest_rise: the largest step from one token to the next; null for one token
-- rising_token: the token that it rose to
-- drift_slope: least-squares slope of the projection over the step; null for one token
-- drift_correlation: Pearson correlation with the step; null if the projection is fixed
create view v_generation_drift as
with
steps as (
    select * from v_generation_projections
    where step >= 0
),

risen as (
    select
        *,
        projection - lag(projection) over (
            partition by axis_id, generation_id, layer, prompt_set
            order by step
        ) as rise
    from steps
)

select
    axis_id,
    any_value(study_id) as study_id,
    any_value(axis_name) as axis_name,
    any_value(kind) as kind,
    any_value(model) as model,
    generation_id,
    prompt_set,
    any_value(prompt_id) as prompt_id,
    layer,
    any_value(category) as category,
    any_value(label) as label,
    arg_max(token, (projection, -step)) as highest_token,
    arg_max(token, (rise, -step)) filter (where rise is not null)
        as rising_token,
    any_value(token_count) as token_count,
    arg_min(projection, step) as first_projection,
    arg_max(projection, step) as last_projection,
    avg(projection) as mean_projection,
    max(projection) as highest_projection,
    arg_max(step, (projection, -step)) as highest_step,
    max(rise) as largest_rise,
    case when count(*) > 1 then regr_slope(projection, step) end as drift_slope,
    case
        when stddev_pop(projection) > 0
            then corr(projection, step)
    end as drift_correlation,
    any_value(is_positive) as is_positive
from risen
group by axis_id, generation_id, layer, prompt_set;
