-- One row per axis, model and labelled prompt set: AUROC of the projection.
-- Mann-Whitney U over n_pos * n_neg with midranks (Hanley and McNeil 1982). Same figure
-- as the macro auroc, by window ranks.
--
-- auroc: chance that a positive row projects above a negative one, ties half; null
--   where a class is missing
-- positive_count: rows of the positive class
-- negative_count: rows of the negative class
-- is_in_sample: whether the axis was fitted on any of these prompts
create view v_auroc as
with
projections as (
    select * from v_projections
    where is_positive is not null
),

places as (
    select
        *,
        row_number() over (
            partition by axis_id, model_id, prompt_set
            order by projection
        ) as place
    from projections
),

ranks as (
    select
        *,
        avg(place) over (
            partition by axis_id, model_id, prompt_set, projection
        ) as midrank
    from places
),

counts as (
    select
        axis_id,
        any_value(axis_name) as axis_name,
        any_value(kind) as kind,
        any_value(method) as method,
        any_value(model) as model,
        model_id,
        prompt_set,
        any_value(layer) as layer,
        count(*) filter (where is_positive) as positive_count,
        count(*) filter (where not is_positive) as negative_count,
        sum(midrank) filter (where is_positive) as positive_rank_sum,
        bool_or(is_in_sample) as is_in_sample
    from ranks
    group by axis_id, model_id, prompt_set
),

final as (
    select
        axis_id,
        axis_name,
        kind,
        method,
        model,
        model_id,
        prompt_set,
        layer,
        (positive_rank_sum - positive_count * (positive_count + 1) / 2)
        / nullif(positive_count * negative_count, 0) as auroc,
        positive_count,
        negative_count,
        is_in_sample
    from counts
)

select * from final;
