-- Activations whose width is not the model's, or whose model is not registered.
select
    activations.model,
    activations.model_id,
    activations.prompt_id,
    activations.layer,
    len(activations.vector) as width,
    models.d_model
from stg_activations as activations
left join stg_models as models using (model_id)
where models.d_model is null or len(activations.vector) != models.d_model;
