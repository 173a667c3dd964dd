-- Which prompt sets are stored, and are their classes balanced?
select
    prompt_set,
    prompt_count,
    positive_count,
    negative_count,
    unlabelled_count,
    pair_count
from v_prompt_sets
order by prompt_set;
