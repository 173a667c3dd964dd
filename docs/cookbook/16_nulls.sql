-- Is that better than chance, and better than the prompts alone tell?
-- native_cross_validated is out of fold; null_cross_validated is its 95th percentile
-- under shuffled labels.
select
    model,
    native_cross_validated::decimal(9, 2) as cross_validated,
    null_cross_validated::decimal(9, 2) as null_95,
    best_baseline,
    best_baseline_auroc::decimal(9, 2) as baseline,
    native_cross_validated > null_cross_validated as is_above_null
from v_study
where study_id = latest_study() and prompt_set = 'demo_safety'
order by model;
