-- One row per prompt in a prompt set, model, layer, site, pooling and template:
-- prompts x labels x models x vectors. A prompt in two sets appears once for each.
-- Name the model in a filter: only that model's files are then opened.
--
-- model_id: the exact model: weights, tokenizer, numerics (models.model_id)
-- prompt_set: the set of the prompt
-- source: where the prompt comes from, in the words of its source
-- depth_fraction: layer / (layer_count - 1): 0 for the first block, 1 for the last
create view v_activations as
with
activations as (select * from stg_activations),

prompts as (select * from v_prompts),

models as (select * from stg_models),

final as (
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
    from activations
    inner join prompts using (prompt_id)
    inner join models using (model_id)
)

select * from final;
