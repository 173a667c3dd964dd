-- Axes that are there more than once.
select
    axis_id,
    count(*) as copies
from stg_axes
group by axis_id
having count(*) > 1;
