-- One row per study, model, prompt set, metric and setting that was varied: how much
-- the metric changes with it.
--
-- prompt_set: the evaluation prompts
-- figure: native, universal or leave_one_out: an AUROC
-- own: the study's value
-- least: the smallest value of the variations
-- greatest: the largest of them
-- spread: greatest minus least
-- value_at_least: the setting's value with the smallest metric
-- value_at_greatest: the setting's value with the largest metric
-- variation_count: values that were tried
-- cosine_least: smallest cosine of the aligned direction with the axis, over the same
--   variations
-- cosine_greatest: the largest
-- cosine_at_least: the cosine where the metric is smallest
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
        figure,
        setting,
        min(estimate) as least,
        max(estimate) as greatest,
        arg_min(value, estimate) as value_at_least,
        arg_max(value, estimate) as value_at_greatest,
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
        min(estimate) as cosine_least,
        max(estimate) as cosine_greatest
    from cosines
    group by study_id, model, setting
),

final as (
    select
        areas.study_id,
        areas.model,
        areas.prompt_set,
        areas.figure,
        areas.setting,
        evaluations.estimate as own,
        areas.least,
        areas.greatest,
        areas.greatest - areas.least as spread,
        areas.value_at_least,
        areas.value_at_greatest,
        areas.variation_count,
        ranges.cosine_least,
        ranges.cosine_greatest,
        cosines.estimate as cosine_at_least,
        areas.greatest - areas.least >= 0.05 as is_fragile
    from areas
    inner join ranges using (study_id, model, setting)
    inner join cosines
        on
            areas.study_id = cosines.study_id
            and areas.model = cosines.model
            and areas.setting = cosines.setting
            and areas.value_at_least = cosines.value
    left join stg_evaluations as evaluations
        on
            areas.study_id = evaluations.study_id
            and areas.model = evaluations.model
            and areas.prompt_set = evaluations.prompt_set
            and areas.figure = evaluations.scorer
            and evaluations.metric = 'auroc'
)

select * from final;
