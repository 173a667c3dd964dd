-- Activations that hold NaN or infinity, or whose norm is not that of the vector.
select
    model,
    prompt_id,
    layer,
    norm
from stg_activations
where
    not isfinite(dot(vector, vector))
    or not isfinite(norm)
    or abs(sqrt(dot(vector, vector)) - norm) > 1e-3 * (1 + norm);
