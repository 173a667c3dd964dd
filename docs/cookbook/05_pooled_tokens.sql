-- Which tokens are pooled? The last pooled token, per model.
-- The three most frequent. If one token ends most prompts, pooling it alone would
-- describe the token more than the prompt.
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
