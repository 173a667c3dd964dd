-- In how many matched pairs does the safe prompt project higher?
select
    model,
    count(*) as pairs,
    count(*) filter (where safe > unsafe) as safe_is_higher,
    (count(*) filter (where safe > unsafe) / count(*))::decimal(9, 2) as share
from (
    select
        model,
        pair_id,
        avg(universal) filter (where is_positive) as unsafe,
        avg(universal) filter (where not is_positive) as safe
    from v_projections_wide
    where study_id = latest_study() and prompt_set = 'demo_safety'
    group by model, pair_id
) as pairs
group by model
order by model;
