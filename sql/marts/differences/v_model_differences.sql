-- One row per comparison of two model versions and layer: how far their activations of
-- the same prompts differ (`axes diff`).
--
-- first: the model version subtracted, with its template unless raw
-- second: the model version that it is subtracted from
-- norm: mean norm of the difference
-- relative_norm: mean of the norm over that of the first's activation
-- cosine: mean cosine of both activations
-- mean_share: share of the squared differences that their mean makes; 1 where all
--   prompts move alike
create view v_model_differences as
select
    study_id,
    fitted_on as first,
    judged_on as second,
    prompt_set,
    layer,
    pick(estimate, metric, 'difference_norm') as norm,
    pick(lower, metric, 'difference_norm') as norm_lower,
    pick(upper, metric, 'difference_norm') as norm_upper,
    pick(estimate, metric, 'difference_relative_norm') as relative_norm,
    pick(lower, metric, 'difference_relative_norm') as relative_norm_lower,
    pick(upper, metric, 'difference_relative_norm') as relative_norm_upper,
    pick(estimate, metric, 'difference_cosine') as cosine,
    pick(estimate, metric, 'difference_mean_share') as mean_share
from stg_evaluations
where scorer = 'difference'
group by study_id, fitted_on, judged_on, prompt_set, layer;
