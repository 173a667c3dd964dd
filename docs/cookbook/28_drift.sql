-- Do the projections of the classes diverge during generation?
-- Slope over the generated tokens, which an empty completion has not; 24 + 24
-- completions per model are too few to decide.
select
    model,
    count(*) as completions,
    count(*) filter (where token_count = 1) as empty,
    avg(drift_slope) filter (where is_positive)::decimal(9, 2) as unsafe_prompts,
    avg(drift_slope) filter (where not is_positive)::decimal(9, 2) as safe_prompts,
    auroc(mean_projection, is_positive)::decimal(9, 2) as auroc_of_mean
from v_generation_drift
where study_id = latest_study() and kind = 'universal'
group by model
order by model;
