-- Activations pooled over no token, over tokens that do not exist, or over others than
-- the strings that are kept.
select
    model,
    prompt_id,
    layer,
    pooled_start,
    pooled_end,
    token_count
from stg_activations
where
    pooled_start < 0
    or pooled_end <= pooled_start
    or pooled_end > token_count
    or len(pooled_tokens) != pooled_end - pooled_start;
