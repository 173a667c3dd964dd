-- Varied figures of a study that is not there.
select
    variations.study_id,
    count(*) as figure_count
from stg_variations as variations
left join stg_evaluations as evaluations using (study_id)
where evaluations.study_id is null
group by variations.study_id;
