-- Labels of prompts that are not in their set.
select
    labels.labeler,
    labels.prompt_set,
    labels.prompt_id
from stg_labels as labels
left join stg_prompts as prompts
    on
        labels.prompt_set = prompts.prompt_set
        and labels.prompt_id = prompts.prompt_id
where labels.generation_id is null and prompts.prompt_id is null;
