-- How much of the variance is between the classes, at the layer of the study?
-- mean_share: share of the mean squared norm that all prompts have in common.
-- class_share: share of the variance between the classes. It reads vectors, so it
-- names its layers.
select
    model,
    layer,
    mean_share::decimal(9, 3) as mean_share,
    class_share::decimal(9, 4) as class_share,
    class_gap::decimal(9, 2) as class_gap
from v_layer_variance
where
    prompt_set = 'demo_safety'
    and (
        (model = 'smollm2-135m' and layer = 23)
        or (model = 'gemma3-270m' and layer = 14)
        or (model = 'qwen2.5-coder-0.5b' and layer = 18)
    )
order by model;
