-- Which dimensions dominate the activations?
-- share: share of the mean squared norm in one dimension of hundreds.
select
    model,
    dimension,
    ratio::decimal(9, 0) as times_median,
    share::decimal(9, 3) as share
from v_outlier_dimensions
where
    place <= 2
    and (
        (model = 'smollm2-135m' and layer = 23)
        or (model = 'gemma3-270m' and layer = 14)
        or (model = 'qwen2.5-coder-0.5b' and layer = 18)
    )
order by model, place;
