-- Axes whose source axes or alignment are not stored.
with
sources as (
    select
        axis_id,
        unnest(source_axis_ids) as source_id
    from stg_axes
)

select
    sources.axis_id,
    sources.source_id as missing
from sources
left join stg_axes as axes on sources.source_id = axes.axis_id
where axes.axis_id is null
union all
select
    axes.axis_id,
    axes.alignment_id as missing
from stg_axes as axes
left join stg_alignments as alignments using (alignment_id)
where axes.alignment_id is not null and alignments.alignment_id is null;
