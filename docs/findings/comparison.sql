-- The ranking of the latest comparison.
with
latest as (
    select arg_max(comparisons.scoring_id, runs.started_at) as scoring_id
    from comparisons
    inner join runs on comparisons.run_id = runs.run_id
)

select
    v_comparison.rank,
    v_comparison.model,
    v_comparison.first,
    v_comparison.probability,
    v_comparison.probability_lower,
    v_comparison.probability_upper,
    v_comparison.outcome,
    v_comparison.outcome_lower,
    v_comparison.outcome_upper,
    v_comparison.prompt_probability,
    v_comparison.elevation,
    v_comparison.refusal,
    v_comparison.alignment_r2,
    v_comparison.warnings,
    v_comparison.prompt_count
from v_comparison
inner join latest on v_comparison.scoring_id = latest.scoring_id
order by v_comparison.rank, v_comparison.model;
