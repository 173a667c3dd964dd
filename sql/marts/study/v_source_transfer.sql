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
with
evaluations as (
    select * from stg_evaluations
    where metric = 'auroc' and judged_on is not null
)

select
    native.study_id,
    native.model,
    native.model_id,
    native.prompt_set,
    native.layer,
    native.fitted_on,
    native.judged_on,
    native.estimate as auroc,
    native.lower as auroc_lower,
    native.upper as auroc_upper,
    words.estimate as word_pairs,
    native.positive_count,
    native.negative_count,
    native.fitted_on = native.judged_on as is_same_source
from evaluations as native
left join evaluations as words
    on
        native.study_id = words.study_id
        and native.fitted_on = words.fitted_on
        and native.judged_on = words.judged_on
        and words.scorer = 'word_pairs'
where native.scorer = 'native';
