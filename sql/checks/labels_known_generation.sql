-- Labels of completions that are not there.
select
    labels.labeler,
    labels.generation_id
from stg_labels as labels
left join stg_generations as generations using (generation_id)
where labels.generation_id is not null and generations.generation_id is null;
