-- One row per axis, model and labelled prompt set: AUROC of the projection.
-- Mann-Whitney U over n_pos * n_neg with midranks (Hanley and McNeil 1982); null where
-- a class is missing. Same value as the macro auroc, exact for any number of rows. All
-- groups are ranked in one sort, by a number for each group: sorting by its three names
-- takes three times as long. A midrank is half the sum of the first and the last rank
-- among equals; the last is cume_dist times the rows of the group, so that their sum is
-- a whole number but for rounding.
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

groups as (
    select
        axis_id,
        any_value(study_id) as study_id,
        any_value(axis_name) as axis_name,
        any_value(kind) as kind,
        any_value(method) as method,
        any_value(model) as model,
        model_id,
        prompt_set,
        any_value(layer) as layer,
        count(*) filter (where is_positive) as positive_count,
        count(*) filter (where not is_positive) as negative_count,
        bool_or(is_in_sample) as is_in_sample
    from projections
    group by axis_id, model_id, prompt_set
),

numbered as (
    select
        *,
        row_number() over (
            order by axis_id, model_id, prompt_set
        )::integer as group_number
    from groups
),

scored as (
    select
        numbered.group_number,
        projections.projection,
        projections.is_positive
    from projections
    inner join numbered using (axis_id, model_id, prompt_set)
),

ranks as (
    select
        group_number,
        is_positive,
        rank() over ranked as first_rank,
        cume_dist() over ranked as last_rank_share
    from scored
    window ranked as (
        partition by group_number
        order by projection
    )
),

sums as (
    select
        group_number,
        sum(first_rank) as first_rank_sum,
        sum(last_rank_share) as last_rank_share_sum
    from ranks
    where is_positive
    group by group_number
)

select
    numbered.axis_id,
    numbered.study_id,
    numbered.axis_name,
    numbered.kind,
    numbered.method,
    numbered.model,
    numbered.model_id,
    numbered.prompt_set,
    numbered.layer,
    (
        sums.first_rank_sum
        + round(
            sums.last_rank_share_sum
            * (numbered.positive_count + numbered.negative_count)
        )
        - numbered.positive_count * (numbered.positive_count + 1)
    )
    / 2
    / nullif(numbered.positive_count * numbered.negative_count, 0) as auroc,
    numbered.positive_count,
    numbered.negative_count,
    numbered.is_in_sample
from numbered
left join sums using (group_number);
