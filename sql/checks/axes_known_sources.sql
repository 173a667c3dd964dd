-- Axes whose source axes are not stored.
with
sources as (
    select
        axis_id as made_axis_id,
        unnest(source_axis_ids) as axis_id
    from stg_axes
)

select
    sources.made_axis_id,
    sources.axis_id as missing
from sources
anti join stg_axes using (axis_id);
