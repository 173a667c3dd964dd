-- Axes that are not unit vectors.
select
    axis_id,
    name,
    sqrt(dot(vector, vector)) as norm
from stg_axes
where abs(sqrt(dot(vector, vector)) - 1) > 1e-5;
