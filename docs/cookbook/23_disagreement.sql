-- On how many prompts do two models disagree at a matched false-positive rate?
-- Each model's threshold has a false-positive rate of 10 % (universal axis).
with
thresholds as (
    select
        model,
        quantile_disc(universal, 0.9) filter (where not is_positive) as threshold
    from v_projections_wide
    where study_id = latest_study() and prompt_set = 'demo_safety'
    group by model
),

flagged as (
    select
        wide.model,
        wide.prompt_id,
        wide.is_positive,
        wide.universal > thresholds.threshold as is_flagged
    from v_projections_wide as wide
    inner join thresholds on wide.model = thresholds.model
    where wide.study_id = latest_study() and wide.prompt_set = 'demo_safety'
)

select
    flagged.model,
    other.model as other_model,
    count(*) filter (where flagged.is_flagged and other.is_flagged) as both_flag,
    count(*) filter (where flagged.is_flagged != other.is_flagged) as one_flags,
    count(*) filter (
        where flagged.is_flagged != other.is_flagged and flagged.is_positive
    ) as of_them_unsafe
from flagged
inner join flagged as other
    on flagged.prompt_id = other.prompt_id and flagged.model < other.model
group by flagged.model, other.model
order by flagged.model, other.model;
