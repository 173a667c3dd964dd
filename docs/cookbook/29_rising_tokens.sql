-- Which token raised the projection most?
-- In completions of safe prompts, the largest single increase in each model.
select
    model,
    rising_token,
    largest_rise::decimal(9, 1) as rise,
    token_count
from v_generation_drift
where study_id = latest_study() and kind = 'universal' and not is_positive
qualify
    row_number() over (
        partition by model
        order by largest_rise desc nulls last, generation_id asc
    ) = 1
order by model;
