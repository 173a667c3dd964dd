-- One row per model, prompt set, layer, site, pooling and template: norms of its
-- activations. Opens no vectors.
--
-- row_count: activations of the set's prompts
-- mean_norm: mean of their norms
-- median_norm: median of their norms
-- largest_norm: largest of their norms
-- norm_deviation: standard deviation of their norms
-- norm_auroc: AUROC of the norm alone, null where a class is missing
create view v_layer_norms as
select
    model,
    model_id,
    prompt_set,
    layer,
    site,
    pooling,
    template,
    any_value(depth_fraction) as depth_fraction,
    count(*) as row_count,
    avg(norm) as mean_norm,
    median(norm) as median_norm,
    max(norm) as largest_norm,
    stddev_samp(norm::double) as norm_deviation,
    auroc(case when is_positive is not null then norm end, is_positive) as norm_auroc
from v_activations
group by model, model_id, prompt_set, layer, site, pooling, template;
