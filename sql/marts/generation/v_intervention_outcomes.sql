-- One row per intervention, prompt, metric and completion, in each prompt set of the
-- prompt: the measurement, next to that of the unsteered model. Labels of the
-- completions are metrics here too, named after their labeler.
--
-- axis_name: its name (axes.name)
-- axis_kind: its axes.kind
-- value: the measurement, of a label 1 for its positive class
-- unsteered: the same of the model as it is; 0 for kl and projection_shift, which are
--   differences from it already
-- difference: value - unsteered
-- prompt_set: the set of the prompt
create view v_intervention_outcomes as
with
labelled as (
    select
        outcomes.* exclude (metric, value),
        labels.labeler as metric,
        labels.is_positive::int::double as value
    from stg_intervention_outcomes as outcomes
    inner join stg_labels as labels using (generation_id)
    where outcomes.metric = 'repetition'
),

measured as (
    select * from stg_intervention_outcomes
    union all by name
    select * from labelled
),

-- Completions of one prompt under different limits are different measurements.
compared as (
    select
        *,
        coalesce(
            any_value(value) filter (where mode = 'none') over (
                partition by
                    model, model_id, template, prompt_id, metric, new_tokens
            ),
            0.0
        ) as unsteered
    from measured
)

select
    compared.intervention_id,
    compared.axis_id,
    axes.name as axis_name,
    axes.kind as axis_kind,
    compared.model,
    compared.model_id,
    prompts.prompt_set,
    compared.prompt_id,
    prompts.pair_id,
    compared.generation_id,
    compared.layers,
    compared.mode,
    compared.positions,
    compared.above,
    compared.condition,
    compared.template,
    compared.new_tokens,
    compared.metric,
    compared.strength,
    compared.unit,
    compared.value,
    compared.unsteered,
    compared.value - compared.unsteered as difference,
    prompts.is_positive
from compared
inner join v_prompts as prompts using (prompt_id)
left join stg_axes as axes using (axis_id);
