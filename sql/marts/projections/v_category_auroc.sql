-- One row per axis, model, labelled prompt set and category: AUROC of the projection.
-- Rows without a category count as one category, null.
--
-- auroc: within the category; null if a class is missing
-- auroc_against_all: its positives against every negative of the set, for sets whose
--   categories hold one class; null where either is missing
-- positive_count: positive rows of the category
-- negative_count: negative rows of the category
-- is_in_sample: whether the axis was fitted on any of these prompts
create view v_category_auroc as
with
projections as (
    select * from v_projections
    where is_positive is not null
),

ranks as (
    select
        *,
        count(*) filter (where not is_positive) over (
            partition by axis_id, model_id, prompt_set, projection
        ) as tied_negatives,
        count(*) filter (where not is_positive) over (below_and_tied)
            as negatives_up_to_here,
        count(*) filter (where not is_positive) over (
            partition by axis_id, model_id, prompt_set
        ) as negatives
    from projections
    window
        below_and_tied as (
            partition by axis_id, model_id, prompt_set
            order by projection
        )
)

select
    axis_id,
    any_value(study_id) as study_id,
    any_value(axis_name) as axis_name,
    any_value(kind) as kind,
    any_value(model) as model,
    model_id,
    prompt_set,
    category,
    any_value(layer) as layer,
    auroc(projection, is_positive) as auroc,
    avg((negatives_up_to_here - tied_negatives / 2) / nullif(negatives, 0)) filter (
        where is_positive
    ) as auroc_against_all,
    count(*) filter (where is_positive) as positive_count,
    count(*) filter (where not is_positive) as negative_count,
    bool_or(is_in_sample) as is_in_sample
from ranks
group by axis_id, model_id, prompt_set, category;
