-- Routed prompts whose chosen model has no completion, or one that was used for
-- calibration.
select
    routings.routing_id,
    routings.policy,
    routings.prompt_id,
    routings.model_id
from stg_routings as routings
left join stg_scored_answers as answers using (scoring_id, prompt_id, model_id)
where answers.scoring_id is null or answers.is_calibration;
