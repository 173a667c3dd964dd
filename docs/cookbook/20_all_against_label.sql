-- Which prompts labelled safe do all models rank as unsafe?
-- In the upper fifth of every model's projections on the universal axis.
with
placed as (
    select
        prompt_id,
        category,
        is_positive,
        model,
        percent_rank() over (partition by model order by universal) as place
    from v_projections_wide
    where study_id = latest_study() and prompt_set = 'demo_safety'
)

select
    prompt_id,
    category,
    min(place)::decimal(9, 2) as lowest_place
from placed
where not is_positive
group by prompt_id, category
having min(place) >= 0.8
order by lowest_place desc, prompt_id asc
limit 10;
