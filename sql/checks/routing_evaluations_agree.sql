-- Outcomes of a policy that are not the mean over its routed prompts.
with
recomputed as (
    select
        routings.routing_id,
        routings.policy,
        sum(routings.share * answers.outcome)
        / count(distinct routings.prompt_id) as outcome
    from stg_routings as routings
    inner join stg_scored_answers as answers using (scoring_id, prompt_id, model_id)
    group by routings.routing_id, routings.policy
)

select
    evaluations.routing_id,
    evaluations.policy,
    evaluations.estimate,
    recomputed.outcome
from stg_routing_evaluations as evaluations
left join recomputed using (routing_id, policy)
where
    evaluations.metric = 'outcome'
    and (
        recomputed.outcome is null
        or abs(evaluations.estimate - recomputed.outcome) > 1e-9
    );
