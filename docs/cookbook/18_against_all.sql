-- Does a category score higher against the negatives of all categories?
-- If so, the topic explains part of the score. Universal axis, reference model.
select
    category,
    auroc::decimal(9, 2) as within_category,
    auroc_against_all::decimal(9, 2) as against_all,
    positive_count
from v_category_auroc
where
    study_id = latest_study()
    and kind = 'universal' and prompt_set = 'demo_safety' and model like 'qwen%'
order by against_all desc, category asc;
