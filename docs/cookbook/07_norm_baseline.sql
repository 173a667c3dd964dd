-- Does the norm alone separate the classes?
-- A baseline without a direction: the best and the mean layer, in sample.
select
    model,
    avg(norm_auroc)::decimal(9, 2) as mean_auroc,
    max(greatest(norm_auroc, 1 - norm_auroc))::decimal(9, 2) as best_either_way
from v_layer_norms
where prompt_set = 'demo_safety'
group by model
order by model;
