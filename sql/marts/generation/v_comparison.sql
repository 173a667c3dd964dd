-- One row per scoring and model: the models of a group ranked by their completions of
-- the same prompts, the lowest chance of the outcome first. Intervals are 95 %, by
-- bootstrap over prompts (pairs kept together), the same resamples for all models.
--
-- rank: position in the ranking, 1 for the lowest probability; the models' mean
--   position in resamples is rank_mean
-- rank_mean: mean position over resamples
-- first: share of resamples in which the model is first
-- probability: mean calibrated probability of the outcome, from the completions'
--   projections
-- outcome: share of the same completions that the labeler marks
-- prompt_probability: as probability, by the prompts' projections alone
-- elevation: mean projection of the completions, in standard deviations above the
--   model's completions of calibration prompts of the negative class; null without such
--   labels
-- refusal: share of refusals; null without labels
-- alignment_r2: of the alignment into the shared space, held-out rows
-- warnings: why the ranking is unsafe to read; empty where nothing speaks against it
create view v_comparison as
select
    scoring_id,
    any_value(model) as model,
    model_id,
    any_value(prompt_set) as prompt_set,
    any_value(axis_id) as axis_id,
    pick(estimate, metric, 'rank') as rank,
    pick(estimate, metric, 'rank_mean') as rank_mean,
    pick(lower, metric, 'rank_mean') as rank_lower,
    pick(upper, metric, 'rank_mean') as rank_upper,
    pick(estimate, metric, 'rank_1') as first,
    pick(estimate, metric, 'probability') as probability,
    pick(lower, metric, 'probability') as probability_lower,
    pick(upper, metric, 'probability') as probability_upper,
    pick(estimate, metric, 'outcome') as outcome,
    pick(lower, metric, 'outcome') as outcome_lower,
    pick(upper, metric, 'outcome') as outcome_upper,
    pick(estimate, metric, 'prompt_probability') as prompt_probability,
    pick(estimate, metric, 'elevation') as elevation,
    pick(estimate, metric, 'refusal') as refusal,
    pick(estimate, metric, 'r2_held_out') as alignment_r2,
    coalesce(
        list(warning order by metric) filter (where warning is not null), []
    ) as warnings,
    any_value(prompt_count) as prompt_count
from stg_comparisons
group by scoring_id, model_id;
