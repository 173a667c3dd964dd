-- Routed prompts of which the chosen model's answer is not there, or was calibrated on.
select
    routings.routing_id,
    routings.policy,
    routings.prompt_id,
    routings.model_id
from stg_routings as routings
left join stg_scored_answers as answers using (scoring_id, prompt_id, model_id)
where answers.scoring_id is null or answers.is_calibration;
