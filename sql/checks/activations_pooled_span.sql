-- Activations pooled over no token, over tokens that do not exist, or over tokens other
-- than the strings stored. Imported vectors may have unknown tokens and are left out
-- then.
select
    activations.model,
    activations.prompt_id,
    activations.layer,
    activations.pooled_start,
    activations.pooled_end,
    activations.token_count
from stg_activations as activations
left join stg_models as models using (model_id)
where
    (
        activations.pooled_start < 0
        or activations.pooled_end <= activations.pooled_start
        or activations.pooled_end > activations.token_count
        or len(activations.pooled_tokens)
        != activations.pooled_end - activations.pooled_start
    )
    and not (
        split_part(coalesce(models.source, ''), ':', 1) = 'imported'
        and activations.token_count = 0
        and activations.pooled_start = 0
        and activations.pooled_end = 0
        and len(activations.pooled_tokens) = 0
    );
