-- The verdict on each claim by the rules of docs/claims.md, the model that decides it,
-- and the smallest effect that these prompts could show.
with
studies as (
    select
        study_id,
        prompts
    from v_studies
    where
        label = 'demo'
        and prompts in ('demo_safety', 'safety_600')
        and direction = 'mean_diff'
        and alignment = 'ridge'
        and universal = 'svd'
        and ridge_lambda is null
        and lambda_policy = 'held_out'
        and pooling = 'last5_mean'
        and template = 'raw'
    qualify
        row_number() over (
            partition by prompts order by started_at desc, study_id asc
        ) = 1
)

select
    claims.prompt_set,
    claims.claim,
    claims.verdict,
    claims.cause,
    claims.model,
    claims.estimate,
    claims.lower,
    claims.upper,
    claims.null_value,
    claims.smallest_effect
from v_claims as claims
where claims.study_id in (select studies.study_id from studies)
order by claims.prompt_set, claims.position;
