-- One row per evaluation or study, model, prompts fitted on and prompts evaluated on,
-- which are never fitted on. A direction that separates sources rather than classes has
-- a high AUROC on the diagonal and on shared sources only.
--
-- fitted_on: of `axes evaluate` a source of both classes, or a positive and a negative
--   one (`a | b`); of a study all prompts but one part (`no source a`, `no category a`,
--   `no length long`), or the prompt set whose paraphrases are evaluated
-- judged_on: the same of the evaluation prompts, that part, or the paraphrases
-- auroc: of the model's direction, fitted without the evaluated prompt and its group
-- universal: the same of the study's universal axis
-- leave_one_out: the same of the axis made without this model
-- word_pairs: AUROC of word counts, fitted and evaluated in the same way
-- correlation: of the projections of prompts and their paraphrases on the universal
--   axis, within classes
-- same_side: share of prompts that lie on the side of the middle of the classes that
--   their paraphrase lies on, on the universal axis
-- gain: universal AUROC of the paraphrases minus that of their prompts
-- is_same_source: whether both are the same sources
create view v_source_transfer as
with
evaluations as (
    select
        *,
        (replace(scorer, '_shifted', ''), metric) as figure
    from stg_evaluations
    where
        judged_on is not null
        and metric in ('auroc', 'correlation', 'same_side', 'auroc_gain')
)

select
    study_id,
    model,
    model_id,
    prompt_set,
    any_value(layer) as layer,
    fitted_on,
    judged_on,
    pick(estimate, figure, ('native', 'auroc')) as auroc,
    pick(lower, figure, ('native', 'auroc')) as auroc_lower,
    pick(upper, figure, ('native', 'auroc')) as auroc_upper,
    pick(estimate, figure, ('universal', 'auroc')) as universal,
    pick(lower, figure, ('universal', 'auroc')) as universal_lower,
    pick(upper, figure, ('universal', 'auroc')) as universal_upper,
    pick(estimate, figure, ('leave_one_out', 'auroc')) as leave_one_out,
    pick(lower, figure, ('leave_one_out', 'auroc')) as leave_one_out_lower,
    pick(upper, figure, ('leave_one_out', 'auroc')) as leave_one_out_upper,
    pick(estimate, figure, ('universal', 'correlation')) as correlation,
    pick(lower, figure, ('universal', 'correlation')) as correlation_lower,
    pick(upper, figure, ('universal', 'correlation')) as correlation_upper,
    pick(estimate, figure, ('universal', 'same_side')) as same_side,
    pick(lower, figure, ('universal', 'same_side')) as same_side_lower,
    pick(upper, figure, ('universal', 'same_side')) as same_side_upper,
    pick(estimate, figure, ('universal', 'auroc_gain')) as gain,
    pick(lower, figure, ('universal', 'auroc_gain')) as gain_lower,
    pick(upper, figure, ('universal', 'auroc_gain')) as gain_upper,
    pick(estimate, figure, ('word_pairs', 'auroc')) as word_pairs,
    any_value(positive_count) as positive_count,
    any_value(negative_count) as negative_count,
    fitted_on = judged_on as is_same_source
from evaluations
group by study_id, model, model_id, prompt_set, fitted_on, judged_on;
