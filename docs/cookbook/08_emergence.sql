-- At which layer does the direction emerge in each model?
-- The first layer within 0.02 of the best AUROC of the model's own directions. In
-- sample: compare the layers, not the absolute values.
with
layers as (
    select
        v_auroc.model,
        v_auroc.layer,
        models.layer_count,
        v_auroc.auroc,
        max(v_auroc.auroc) over (partition by v_auroc.model) as best
    from v_auroc
    inner join models on v_auroc.model_id = models.model_id
    where v_auroc.kind = 'native' and v_auroc.prompt_set = 'demo_safety'
)

select
    model,
    min(layer) filter (where auroc >= best - 0.02) as emerges_at,
    (min(layer) filter (where auroc >= best - 0.02) / any_value(layer_count - 1))
    ::decimal(9, 2) as depth,
    arg_max(layer, auroc) as best_layer,
    any_value(best)::decimal(9, 2) as best_auroc,
    any_value(auroc order by layer)::decimal(9, 2) as first_auroc
from layers
group by model
order by model;
