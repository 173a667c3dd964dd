-- Do the projections of the classes diverge during generation?
-- Mean over completions of the running projection on the universal axis, by step.
-- Completions that end before a step are not in it; an empty one ends at its first
-- token.
select
    model,
    step,
    count(*) as completions,
    count(*) filter (where token_count = 1) as empty,
    avg(running_mean) filter (where is_positive) as unsafe_prompts,
    avg(running_mean) filter (where not is_positive) as safe_prompts,
    auroc(running_mean, is_positive) as auroc
from v_generation_projections
where study_id = latest_study() and kind = 'universal' and step in (0, 5, 10, 15)
group by all
order by model, step;
