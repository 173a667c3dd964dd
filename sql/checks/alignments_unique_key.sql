-- Alignments that are there more than once under one key.
select
    alignment_id,
    count(*) as copies
from stg_alignments
group by all
having count(*) > 1;
