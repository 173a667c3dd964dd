-- Projections by alignments that are not there.
select
    projections.alignment_id,
    count(*) as projection_count
from stg_projections as projections
left join stg_alignments as alignments using (alignment_id)
where projections.alignment_id is not null and alignments.alignment_id is null
group by projections.alignment_id;
