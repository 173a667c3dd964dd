-- One row per study, model, prompt set, metric and setting that was varied: how much
-- the metric changes with it.
--
-- prompt_set: the evaluation prompts
-- metric: native, universal or leave_one_out: an AUROC
-- own: the study's value
-- metric_min: the smallest value of the variations
-- metric_max: the largest of them
-- spread: metric_max minus metric_min
-- value_at_min: the setting's value with the smallest metric
-- value_at_max: the setting's value with the largest metric
-- variation_count: values that were tried
-- cosine_min: smallest cosine of the aligned direction with the axis, over the same
--   variations
-- cosine_max: the largest
-- cosine_at_min: the cosine where the metric is smallest
-- is_fragile: the spread is at least 0.05
create view v_sensitivity as
with
cosines as (
    select * from stg_variations
    where figure = 'cosine_universal'
),

areas as (
    select
        study_id,
        model,
        prompt_set,
        figure as metric,
        setting,
        min(estimate) as metric_min,
        max(estimate) as metric_max,
        arg_min(value, estimate order by value) as value_at_min,
        arg_max(value, estimate order by value) as value_at_max,
        count(*) as variation_count
    from stg_variations
    where figure != 'cosine_universal'
    group by study_id, model, prompt_set, figure, setting
),

ranges as (
    select
        study_id,
        model,
        setting,
        min(estimate) as cosine_min,
        max(estimate) as cosine_max
    from cosines
    group by study_id, model, setting
),

final as (
    select
        areas.study_id,
        areas.model,
        areas.prompt_set,
        areas.metric,
        areas.setting,
        evaluations.estimate as own,
        areas.metric_min,
        areas.metric_max,
        areas.metric_max - areas.metric_min as spread,
        areas.value_at_min,
        areas.value_at_max,
        areas.variation_count,
        ranges.cosine_min,
        ranges.cosine_max,
        cosines.estimate as cosine_at_min,
        areas.metric_max - areas.metric_min >= 0.05 as is_fragile
    from areas
    inner join ranges using (study_id, model, setting)
    inner join cosines
        on
            areas.study_id = cosines.study_id
            and areas.model = cosines.model
            and areas.setting = cosines.setting
            and areas.value_at_min = cosines.value
    -- A study has no such metric of a set of paraphrases, though it is varied there.
    inner join stg_evaluations as evaluations
        on
            areas.study_id = evaluations.study_id
            and areas.model = evaluations.model
            and areas.prompt_set = evaluations.prompt_set
            and areas.metric = evaluations.scorer
            and evaluations.metric = 'auroc'
)

select * from final;
