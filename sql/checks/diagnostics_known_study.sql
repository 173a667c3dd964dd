-- Findings about studies that are not there.
select
    diagnostics.study_id,
    count(*) as finding_count
from stg_diagnostics as diagnostics
left join stg_evaluations as evaluations using (study_id)
where evaluations.study_id is null
group by diagnostics.study_id;
