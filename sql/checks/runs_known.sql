-- Rows of any table written by a job that has no row in runs.
with
written as (
    select run_id from stg_activations
    union all
    select run_id from stg_alignments
    union all
    select run_id from stg_answer_calibrations
    union all
    select run_id from stg_axes
    union all
    select run_id from stg_calibrations
    union all
    select run_id from stg_comparisons
    union all
    select run_id from stg_diagnostics
    union all
    select run_id from stg_drift_figures
    union all
    select run_id from stg_evaluations
    union all
    select run_id from stg_generation_tokens
    union all
    select run_id from stg_generations
    union all
    select run_id from stg_intervention_outcomes
    union all
    select run_id from stg_interventions
    union all
    select run_id from stg_labels
    union all
    select run_id from stg_models
    union all
    select run_id from stg_projections
    union all
    select run_id from stg_prompt_tokens
    union all
    select run_id from stg_prompts
    union all
    select run_id from stg_routing_evaluations
    union all
    select run_id from stg_routings
    union all
    select run_id from stg_scored_answers
    union all
    select run_id from stg_steps
    union all
    select run_id from stg_token_projections
    union all
    select run_id from stg_trajectories
    union all
    select run_id from stg_variations
)

select
    written.run_id,
    count(*) as row_count
from written
left join stg_runs as runs using (run_id)
where runs.run_id is null
group by written.run_id;
