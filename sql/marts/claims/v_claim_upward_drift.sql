-- One row per study, prompt set and drift analysis, of the claim that the projection of
-- the positive class rises while a model generates. From `axes drift` on the study's
-- universal axis, by the labels of prompts that no direction was fitted on.
--
-- models: the model alone
-- model: the model, with the template and the limit of its completions
-- estimate: slope per token, positive less negative class
-- null_value: 0
-- is_met: the positive class rises, more than the negative one, and under every control
-- is_refuted: it rises less, or a control is shown to explain the difference
create view v_claim_upward_drift as
with
studies as (
    select distinct
        study_id,
        axis_id,
        parameters ->> '$.prompts' as fitted_on
    from stg_evaluations
    where scorer = 'universal' and metric = 'auroc'
)

select
    studies.study_id,
    analyses.prompt_set,
    concat_ws(
        ' ', analyses.model, analyses.template, analyses.max_new_tokens
    ) as model,
    [analyses.model] as models,
    analyses.slope_difference as estimate,
    analyses.lower,
    analyses.upper,
    0.0 as null_value,
    coalesce(analyses.is_drift and analyses.is_controlled, false) as is_met,
    coalesce(
        analyses.upper < 0
        or (analyses.is_drift and len(analyses.controls_failed) > 0),
        false
    ) as is_refuted
from v_drift as analyses
inner join studies using (axis_id)
where analyses.labeler is null and analyses.prompt_set != studies.fitted_on;
