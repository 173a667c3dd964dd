-- One row per prompt in a prompt set, model, layer, site, pooling and template:
-- prompts x labels x models x vectors. A prompt in two sets appears once for each.
-- Name the model in a filter: only that model's files are then opened.
--
-- depth_fraction: layer / (layer_count - 1): 0 for the first block, 1 for the last
create view v_activations as
select
    activations.model,
    activations.model_id,
    prompts.prompt_set,
    activations.prompt_id,
    prompts.pair_id,
    activations.layer,
    activations.site,
    activations.pooling,
    activations.template,
    prompts.text,
    prompts.source,
    prompts.category,
    prompts.split,
    prompts.label,
    models.model_group,
    models.dtype,
    activations.pooled_tokens,
    prompts.position,
    activations.vector,
    activations.norm,
    activations.token_count,
    models.layer_count,
    activations.layer / nullif(models.layer_count - 1, 0) as depth_fraction,
    prompts.is_positive
from stg_activations as activations
inner join v_prompts as prompts using (prompt_id)
inner join stg_models as models using (model_id);
