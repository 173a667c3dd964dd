-- In which categories does the universal axis score well, and in which poorly?
-- AUROC per category and model; 50 prompts each, so differences of 0.1 are noise.
select
    category,
    auroc(case when model = 'smollm2-135m' then projection end, is_positive) as smollm2,
    auroc(case when model = 'gemma3-270m' then projection end, is_positive) as gemma3,
    auroc(case when model like 'qwen%' then projection end, is_positive) as qwen_coder
from v_projections
where study_id = latest_study() and kind = 'universal' and prompt_set = 'demo_safety'
group by category
order by qwen_coder desc;
