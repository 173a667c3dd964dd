-- Tokens of completions of which neither a vector nor a projection is there.
select
    tokens.model,
    tokens.generation_id,
    tokens.step,
    tokens.layer
from stg_generation_tokens as tokens
inner join stg_generations as generations
    on
        tokens.model = generations.model
        and tokens.generation_id = generations.generation_id
anti join stg_token_projections as projections
    on
        tokens.model = projections.model
        and tokens.generation_id = projections.generation_id
        and tokens.step = projections.step
        and tokens.layer = projections.layer
where tokens.vector is null;
