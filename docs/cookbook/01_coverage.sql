-- Which activations are stored, and which are missing?
-- The alignment set was ingested up to its 1,500th prompt.
select
    model,
    prompt_set,
    count(*) as layers,
    any_value(prompt_count) as prompts,
    min(row_count) as fewest_rows,
    max(missing_count) as most_missing
from v_coverage
group by model, prompt_set
order by model, prompt_set;
