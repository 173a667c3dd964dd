-- Labels of prompts that are not in their set.
select
    labels.labeler,
    labels.prompt_set,
    labels.prompt_id
from stg_labels as labels
left join stg_prompts as prompts using (prompt_set, prompt_id)
where labels.generation_id is null and prompts.prompt_id is null;
