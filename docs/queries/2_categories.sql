-- Which categories does the universal axis rank well, and which does it miss?
select
    category,
    auroc(projection, is_positive) filter (where model = 'smollm2-135m') as smollm2,
    auroc(projection, is_positive) filter (where model = 'gemma3-270m') as gemma3,
    auroc(projection, is_positive)
    filter (where model = 'qwen2.5-coder-0.5b') as qwen2_5_coder
from v_projections
where kind = 'universal' and prompt_set = 'demo_safety'
group by category
order by qwen2_5_coder desc;
