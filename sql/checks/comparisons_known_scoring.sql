-- Comparisons of answers that are not there.
select
    comparisons.scoring_id,
    comparisons.model_id,
    count(*) as figure_count
from stg_comparisons as comparisons
left join stg_scored_answers as answers using (scoring_id, model_id)
where answers.scoring_id is null
group by comparisons.scoring_id, comparisons.model_id;
