-- One row per routing and policy: what it would have brought, on prompts that no
-- calibration has seen. Intervals are 95 %, by bootstrap over prompts (pairs kept
-- together).
--
-- routing_id: the routing (routings.routing_id)
-- outcome: mean outcome of the chosen completions; lower is better
-- regret: outcome less that of the oracle
-- gain: outcome of the best single model less this policy's, on the same prompts
-- gain_p_value: two-sided, that the gain is 0
-- over_raw: outcome of the same policy on raw projections less this policy's; null for
--   a policy that needs no calibration
-- refusal: share of refusals among the chosen completions; null without labels
-- cost: mean cost of the chosen completions
-- cost_of_choice: mean cost of all completions that are needed to choose
-- models: map from model to the share of prompts that goes to it
create view v_routing as
with
parts as (
    select
        routing_id,
        policy,
        model,
        sum(share) / sum(sum(share)) over (partition by routing_id, policy) as part
    from stg_routings
    group by routing_id, policy, model
),

model_shares as (
    select
        routing_id,
        policy,
        map(list(model order by model), list(part order by model)) as models
    from parts
    group by routing_id, policy
),

wide as (
    select
        routing_id,
        any_value(scoring_id) as scoring_id,
        policy,
        any_value(prompt_set) as prompt_set,
        any_value(axis_id) as axis_id,
        pick(estimate, metric, 'outcome') as outcome,
        pick(lower, metric, 'outcome') as outcome_lower,
        pick(upper, metric, 'outcome') as outcome_upper,
        pick(estimate, metric, 'regret') as regret,
        pick(lower, metric, 'regret') as regret_lower,
        pick(upper, metric, 'regret') as regret_upper,
        pick(estimate, metric, 'gain') as gain,
        pick(lower, metric, 'gain') as gain_lower,
        pick(upper, metric, 'gain') as gain_upper,
        pick(p_value, metric, 'gain') as gain_p_value,
        pick(estimate, metric, 'over_raw') as over_raw,
        pick(lower, metric, 'over_raw') as over_raw_lower,
        pick(upper, metric, 'over_raw') as over_raw_upper,
        pick(estimate, metric, 'refusal') as refusal,
        pick(lower, metric, 'refusal') as refusal_lower,
        pick(upper, metric, 'refusal') as refusal_upper,
        pick(estimate, metric, 'cost') as cost,
        pick(estimate, metric, 'cost_of_choice') as cost_of_choice,
        any_value(prompt_count) as prompt_count
    from stg_routing_evaluations
    group by routing_id, policy
)

select
    wide.*,
    model_shares.models
from wide
left join model_shares using (routing_id, policy);
