-- One row per prompt set.
--
-- sources: the sources of its prompts
-- licenses: the licences of its prompts
-- prompt_count: its prompts
-- positive_count: those of the positive class
-- negative_count: those of the negative class
-- unlabelled_count: those without a label
-- pair_count: its matched pairs
create view v_prompt_sets as
select
    prompt_set,
    string_agg(distinct source, ', ' order by source) as sources,
    string_agg(distinct license, ', ' order by license) as licenses,
    count(*) as prompt_count,
    count(*) filter (where is_positive) as positive_count,
    count(*) filter (where not is_positive) as negative_count,
    count(*) filter (where is_positive is null) as unlabelled_count,
    count(distinct pair_id) as pair_count
from v_prompts
group by prompt_set;
