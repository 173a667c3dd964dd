-- Labels of prompts that are not in their set. Those of an import that was killed
-- before it wrote the prompts count for nothing.
select
    labels.labeler,
    labels.prompt_set,
    labels.prompt_id
from stg_labels as labels
left join stg_prompts as prompts using (prompt_set, prompt_id)
left join stg_runs as runs on labels.run_id = runs.run_id
where
    labels.generation_id is null
    and prompts.prompt_id is null
    and coalesce(runs.status, '') not in ('running', 'failed', 'interrupted');
