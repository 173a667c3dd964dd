-- One row per axis, model and labelled prompt that lies on the wrong side of the
-- threshold: halfway between the class means of the prompts that the axis was fitted
-- on, projected for the same model. No rows for an axis whose fitting prompts are not
-- projected. Out of sample only where is_in_sample is false.
--
-- threshold: halfway between the class means of the prompts that the axis was fitted on
-- margin: how far beyond it, in pooled standard deviations of those prompts
-- error: false positive, or false negative
create view v_misclassified as
with
projections as (
    select * from v_projections
    where is_positive is not null
),

thresholds as (
    select
        projections.axis_id,
        projections.model_id,
        (
            avg(projections.projection) filter (where projections.is_positive)
            + avg(projections.projection) filter (where not projections.is_positive)
        ) / 2 as threshold,
        (
            avg(projections.projection) filter (where projections.is_positive)
            - avg(projections.projection) filter (where not projections.is_positive)
        )
        / cohens_d(projections.projection, projections.is_positive) as deviation
    from projections
    inner join stg_axes using (axis_id, prompt_set)
    group by projections.axis_id, projections.model_id
)

select
    projections.axis_id,
    projections.study_id,
    projections.axis_name,
    projections.kind,
    projections.model,
    projections.model_id,
    projections.prompt_set,
    projections.prompt_id,
    projections.pair_id,
    projections.layer,
    projections.text,
    projections.category,
    projections.label,
    case
        when projections.is_positive then 'false negative' else 'false positive'
    end as error,
    projections.projection,
    thresholds.threshold,
    abs(projections.projection - thresholds.threshold)
    / thresholds.deviation as margin,
    projections.is_positive,
    projections.is_in_sample
from projections
inner join thresholds using (axis_id, model_id)
where
    (projections.projection > thresholds.threshold) != projections.is_positive;
