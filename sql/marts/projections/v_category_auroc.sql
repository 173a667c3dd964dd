-- One row per axis, model, labelled prompt set and category: AUROC of the projection.
-- Rows without a category count as one category, null.
--
-- study_id: the last study that evaluated the axis; null without one
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

within as (
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
        count(*) filter (where is_positive) as positive_count,
        count(*) filter (where not is_positive) as negative_count,
        bool_or(is_in_sample) as is_in_sample
    from projections
    group by axis_id, model_id, prompt_set, category
),

ranks as (
    select
        axis_id,
        model_id,
        prompt_set,
        category,
        is_positive,
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
),

against_all as (
    select
        axis_id,
        model_id,
        prompt_set,
        category,
        avg((negatives_up_to_here - tied_negatives / 2) / nullif(negatives, 0))
            as auroc
    from ranks
    where is_positive
    group by axis_id, model_id, prompt_set, category
),

final as (
    select
        within.axis_id,
        within.study_id,
        within.axis_name,
        within.kind,
        within.model,
        within.model_id,
        within.prompt_set,
        within.category,
        within.layer,
        within.auroc,
        against_all.auroc as auroc_against_all,
        within.positive_count,
        within.negative_count,
        within.is_in_sample
    from within
    left join against_all
        on
            within.axis_id = against_all.axis_id
            and within.model_id = against_all.model_id
            and within.prompt_set = against_all.prompt_set
            and within.category is not distinct from against_all.category
)

select * from final;
