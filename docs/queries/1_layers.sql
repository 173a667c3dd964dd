-- At which depth does each model's direction emerge?
-- Every AUROC here is in sample; `axes study` also prints the held-out values.
select
    v_auroc.model,
    round(v_auroc.layer / (models.layer_count - 1) * 5) / 5 as depth,
    count(*) as layers,
    avg(v_auroc.auroc) as mean_auroc,
    max(v_auroc.auroc) as best_auroc
from v_auroc
inner join models on v_auroc.model_id = models.model_id
where v_auroc.kind = 'native' and v_auroc.prompt_set = 'demo_safety'
group by all
order by v_auroc.model, depth;
