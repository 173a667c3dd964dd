-- Token vectors that hold NaN or infinity, or whose width is not the model's. Tokens
-- without a completion (their job was killed) are left out: no view reads them.
select
    tokens.model,
    tokens.generation_id,
    tokens.step,
    tokens.layer,
    len(tokens.vector) as width,
    models.d_model
from stg_generation_tokens as tokens
inner join stg_generations as generations using (model, generation_id)
inner join stg_models as models on generations.model_id = models.model_id
where
    len(tokens.vector) != models.d_model
    or not isfinite(dot(tokens.vector, tokens.vector));
