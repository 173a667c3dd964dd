-- How many models misclassify each prompt?
-- Threshold: halfway between the class means. In sample.
select
    error,
    models,
    count(*) as prompts
from (
    select
        prompt_id,
        error,
        count(*) as models
    from v_misclassified
    where
        study_id = latest_study()
        and kind = 'universal' and prompt_set = 'demo_safety'
    group by prompt_id, error
) as missed
group by error, models
order by error, models;
