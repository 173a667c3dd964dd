-- One row per evaluation, model and layer: the direction of each layer out of fold,
-- compared with word pairs. The best of many layers is an optimistic value, not a
-- result: use native_layer_chosen in `evaluations`.
--
-- auroc: of the direction out of fold, with groups and near duplicates in one fold
-- in_sample: of the direction on the prompts it was fitted on
-- minus_word_pairs: auroc less that of word pairs out of fold, paired
-- p_value: two-sided, for no difference to word pairs
create view v_layer_tests as
select
    study_id,
    model,
    model_id,
    prompt_set,
    layer,
    pick(estimate, scorer, 'native_cross_validated') as auroc,
    pick(lower, scorer, 'native_cross_validated') as auroc_lower,
    pick(upper, scorer, 'native_cross_validated') as auroc_upper,
    pick(estimate, scorer, 'native') as in_sample,
    pick(estimate, scorer, 'native_minus_word_pairs') as minus_word_pairs,
    pick(lower, scorer, 'native_minus_word_pairs') as minus_word_pairs_lower,
    pick(upper, scorer, 'native_minus_word_pairs') as minus_word_pairs_upper,
    pick(p_value, scorer, 'native_minus_word_pairs') as p_value,
    pick(p_value_adjusted, scorer, 'native_minus_word_pairs') as p_value_adjusted
from stg_evaluations
where fitted_on is not null and judged_on is null and layer is not null
group by study_id, model, model_id, prompt_set, layer;
