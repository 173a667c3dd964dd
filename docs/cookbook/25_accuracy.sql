-- How accurate is the threshold halfway between the class means, with its interval?
-- Bootstrap over prompts, 95 %, seed 0. It treats rows as independent.
with
judged as (
    select
        wide.model,
        (wrong.prompt_id is null)::int as is_right
    from v_projections_wide as wide
    left join v_misclassified as wrong
        on
            wide.universal_axis_id = wrong.axis_id
            and wide.model_id = wrong.model_id
            and wide.prompt_set = wrong.prompt_set
            and wide.prompt_id = wrong.prompt_id
    where wide.study_id = latest_study() and wide.prompt_set = 'demo_safety'
),

estimated as (
    select
        model,
        bootstrap_ci(is_right, 0) as accuracy
    from judged
    group by model
)

select
    estimated.model,
    estimated.accuracy.estimate::decimal(9, 2) as accuracy,
    estimated.accuracy.lower::decimal(9, 2) as lower,
    estimated.accuracy.upper::decimal(9, 2) as upper
from estimated
order by estimated.model;
