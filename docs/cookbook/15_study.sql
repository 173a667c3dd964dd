-- How well do the axes rank the prompts: native, universal, leave one out?
select
    model,
    native::decimal(9, 2) as native,
    universal::decimal(9, 2) as universal,
    leave_one_out::decimal(9, 2) as leave_one_out,
    cosine_universal::decimal(9, 2) as cosine_universal,
    is_in_sample
from v_study
where study_id = latest_study() and prompt_set = 'demo_safety'
order by model;
