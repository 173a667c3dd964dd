-- Completions whose steps are not 0 to token_count - 1 at every stored layer.
-- Completions of an intervention, steered or not, are stored as text alone and left
-- out.
select
    generations.generation_id,
    generations.token_count,
    tokens.layer,
    count(tokens.step) as steps
from stg_generations as generations
left join stg_generation_tokens as tokens
    on
        generations.model = tokens.model
        and generations.generation_id = tokens.generation_id
        and tokens.step >= 0
where generations.intervention_id is null
group by all
having
    count(distinct tokens.step) != generations.token_count
    or count(tokens.step) != generations.token_count
    or max(tokens.step) != generations.token_count - 1;
