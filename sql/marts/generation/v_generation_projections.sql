-- One row per axis, layer, completion and step, in each prompt set of its prompt: the
-- projection while the model generates. Steps below 0 are tokens of the prompt, where
-- they were kept.
--
-- study_id: the last study that evaluated the axis; null without one
-- axis_name: its name (axes.name)
-- running_mean: mean projection of the steps so far; prompt tokens are averaged
--   separately
create view v_generation_projections as
select
    token_projections.axis_id,
    studies.study_id,
    axes.name as axis_name,
    axes.kind,
    token_projections.model,
    token_projections.generation_id,
    prompts.prompt_set,
    generations.prompt_id,
    token_projections.layer,
    token_projections.step,
    tokens.token,
    prompts.category,
    prompts.label,
    token_projections.projection,
    avg(token_projections.projection) over (
        partition by
            token_projections.axis_id,
            token_projections.generation_id,
            token_projections.layer,
            token_projections.step >= 0,
            prompts.prompt_set
        order by token_projections.step
    ) as running_mean,
    tokens.logprob,
    tokens.entropy,
    generations.token_count,
    prompts.is_positive
from stg_token_projections as token_projections
inner join stg_generations as generations using (generation_id)
-- Token, log-probability and entropy are the same at every stored layer.
inner join stg_generation_tokens as tokens
    on
        token_projections.model = tokens.model
        and token_projections.generation_id = tokens.generation_id
        and token_projections.step = tokens.step
        and token_projections.layer = tokens.layer
inner join v_prompts as prompts on generations.prompt_id = prompts.prompt_id
inner join stg_axes as axes on token_projections.axis_id = axes.axis_id
left join v_study_axes as studies
    on token_projections.axis_id = studies.axis_id and studies.is_last;
