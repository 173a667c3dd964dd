-- What do we pool over? The last of the pooled tokens, per model.
-- The three most frequent. Where one token ends most prompts, pooling it alone would
-- say more about the token than about the prompt.
select
    model,
    pooled_tokens[-1] as last_token,
    count(*) as prompts
from activations
where layer = 0
group by model, pooled_tokens[-1]
qualify
    row_number() over (
        partition by model
        order by count(*) desc, pooled_tokens[-1] asc
    ) <= 3
order by model asc, prompts desc, last_token asc;
