-- Which models are stored, and how large are they?
select
    model,
    architecture,
    layer_count,
    d_model,
    round(parameter_count / 1e6)::int as million_parameters,
    dtype,
    is_reference
from models
order by parameter_count, model;
