-- Do the models rank the same prompts similarly?
-- Spearman of the projections; within the unsafe class the labels cannot cause it.
select
    kind,
    model,
    other_model,
    prompt_count,
    spearman::decimal(9, 2) as spearman,
    spearman_positive::decimal(9, 2) as within_unsafe
from v_model_agreement
where
    study_id = latest_study()
    and prompt_set = 'demo_safety' and model < other_model
order by kind, model, other_model;
