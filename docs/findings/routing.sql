-- The policies of the latest routing.
with
latest as (
    select arg_max(evaluations.routing_id, runs.started_at) as routing_id
    from routing_evaluations as evaluations
    inner join runs on evaluations.run_id = runs.run_id
)

select
    v_routing.policy,
    v_routing.outcome,
    v_routing.outcome_lower,
    v_routing.outcome_upper,
    v_routing.regret,
    v_routing.gain,
    v_routing.gain_lower,
    v_routing.gain_upper,
    v_routing.over_raw,
    v_routing.over_raw_lower,
    v_routing.over_raw_upper,
    v_routing.refusal,
    v_routing.cost,
    v_routing.cost_of_choice,
    v_routing.prompt_count
from v_routing
inner join latest on v_routing.routing_id = latest.routing_id
order by v_routing.outcome, v_routing.policy;
