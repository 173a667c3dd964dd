-- One row per routing, policy, prompt and model that it goes to, with what the model
-- answered is known to be. Means over prompts of share times a column are the values
-- of routing_evaluations.
--
-- is_oracle: whether the oracle sends the prompt to the same model
create view v_routings as
select
    routings.routing_id,
    routings.scoring_id,
    routings.policy,
    routings.axis_id,
    routings.prompt_set,
    routings.prompt_id,
    routings.model,
    routings.model_id,
    answers.generation_ids,
    routings.why,
    prompts.category,
    prompts.label,
    routings.share,
    routings.cost,
    answers.prompt_projection,
    answers.answer_projection,
    answers.prompt_probability,
    answers.answer_probability,
    answers.outcome,
    answers.refusal,
    answers.token_count,
    prompts.is_positive,
    answers.is_in_sample,
    routings.model_id = oracle.model_id as is_oracle
from stg_routings as routings
inner join stg_scored_answers as answers using (scoring_id, prompt_id, model_id)
inner join stg_routings as oracle using (routing_id, prompt_id)
inner join v_prompts as prompts
    on
        routings.prompt_set = prompts.prompt_set
        and routings.prompt_id = prompts.prompt_id
where oracle.policy = 'oracle' and not answers.is_calibration;
