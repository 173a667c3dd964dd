-- One row per axis, model, labelled prompt set and threshold: the ROC curve of the
-- projection. Every projection that occurs is a threshold, and one more, null, is above
-- all of them. Joined by straight lines the points hold the area auroc of v_auroc.
--
-- threshold: projections at or above it count as positive; null: none does
-- false_positive_rate: share of the negative class at or above it; null without one
-- true_positive_rate: share of the positive class at or above it; null without one
-- is_in_sample: whether the axis was fitted on any of these prompts
create view v_roc as
with
projections as (
    select * from v_projections
    where is_positive is not null
),

tallies as (
    select
        axis_id,
        any_value(axis_name) as axis_name,
        any_value(kind) as kind,
        any_value(model) as model,
        model_id,
        prompt_set,
        any_value(layer) as layer,
        projection as threshold,
        count(*) filter (where is_positive) * (1 - grouping(projection))
            as positives,
        count(*) filter (where not is_positive) * (1 - grouping(projection))
            as negatives,
        bool_or(is_in_sample) as is_in_sample
    from projections
    -- The second set is the threshold above all projections.
    group by
        grouping sets (
            (axis_id, model_id, prompt_set, projection),
            (axis_id, model_id, prompt_set)
        )
)

select
    axis_id,
    axis_name,
    kind,
    model,
    model_id,
    prompt_set,
    layer,
    threshold,
    sum(negatives) over falling / nullif(sum(negatives) over whole, 0)
        as false_positive_rate,
    sum(positives) over falling / nullif(sum(positives) over whole, 0)
        as true_positive_rate,
    bool_or(is_in_sample) over whole as is_in_sample
from tallies
window
    whole as (partition by axis_id, model_id, prompt_set),
    falling as (
        partition by axis_id, model_id, prompt_set
        order by threshold desc nulls first
    );
