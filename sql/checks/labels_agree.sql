-- Prompts that one labeler calls positive and negative.
select
    labeler,
    prompt_id,
    count(distinct is_positive) as opinions
from stg_labels
where generation_id is null
group by labeler, prompt_id
having count(distinct is_positive) > 1;
