-- One row per evaluation, model, sources fitted on and sources evaluated on: the
-- results of `axes evaluate`. A direction that separates sources rather than classes
-- has a high AUROC on the diagonal and on shared sources only.
--
-- fitted_on: a source of both classes, or a positive and a negative one (`a | b`)
-- judged_on: the same of the evaluation prompts, which are never fitted on
-- auroc: of the model's direction, fitted without the evaluated prompt and its group
-- word_pairs: AUROC of word counts, fitted and evaluated in the same way
-- is_same_source: whether both are the same sources
create view v_source_transfer as
select
    study_id,
    model,
    model_id,
    prompt_set,
    any_value(layer) as layer,
    fitted_on,
    judged_on,
    pick(estimate, scorer, 'native') as auroc,
    pick(lower, scorer, 'native') as auroc_lower,
    pick(upper, scorer, 'native') as auroc_upper,
    pick(estimate, scorer, 'word_pairs') as word_pairs,
    any_value(positive_count) as positive_count,
    any_value(negative_count) as negative_count,
    fitted_on = judged_on as is_same_source
from stg_evaluations
where metric = 'auroc' and judged_on is not null
group by study_id, model, model_id, prompt_set, fitted_on, judged_on;
