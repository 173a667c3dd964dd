-- Tokens of completions of which neither a vector nor a projection is stored.
select
    tokens.model,
    tokens.generation_id,
    tokens.step,
    tokens.layer
from stg_generation_tokens as tokens
inner join stg_generations using (model, generation_id)
anti join stg_token_projections using (model, generation_id, step, layer)
where tokens.vector is null;
