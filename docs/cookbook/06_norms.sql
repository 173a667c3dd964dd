-- How does the norm of the activations grow with depth?
select
    model,
    min(mean_norm) filter (where depth_fraction = 0)::decimal(9, 0) as first_layer,
    median(mean_norm)::decimal(9, 0) as median_layer,
    max(mean_norm) filter (where depth_fraction = 1)::decimal(9, 0) as last_layer
from v_layer_norms
where prompt_set = 'demo_safety'
group by model
order by model;
