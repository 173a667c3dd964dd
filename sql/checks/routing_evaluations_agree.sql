-- Outcomes of a policy that are not the mean over its routed prompts.
with
recomputed as (
    select
        routings.routing_id,
        routings.policy,
        sum(routings.share * answers.outcome)
        / count(distinct routings.prompt_id) as outcome
    from stg_routings as routings
    inner join stg_scored_answers as answers
        on
            routings.scoring_id = answers.scoring_id
            and routings.prompt_id = answers.prompt_id
            and routings.model_id = answers.model_id
    group by routings.routing_id, routings.policy
)

select
    evaluations.routing_id,
    evaluations.policy,
    evaluations.estimate,
    recomputed.outcome
from stg_routing_evaluations as evaluations
left join recomputed
    on
        evaluations.routing_id = recomputed.routing_id
        and evaluations.policy = recomputed.policy
where
    evaluations.metric = 'outcome'
    and (
        recomputed.outcome is null
        or abs(evaluations.estimate - recomputed.outcome) > 1e-9
    );
