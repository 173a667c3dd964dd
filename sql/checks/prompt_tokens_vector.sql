-- Token vectors of prompts that hold NaN or infinity, whose width is not the model's,
-- or whose model is not registered.
select
    tokens.model,
    tokens.prompt_id,
    tokens.layer,
    tokens.position,
    len(tokens.vector) as width,
    models.d_model
from stg_prompt_tokens as tokens
left join stg_models as models using (model_id)
where
    models.d_model is null
    or len(tokens.vector) != models.d_model
    or not isfinite(dot(tokens.vector, tokens.vector));
