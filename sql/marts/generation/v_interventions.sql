-- One row per experiment, axis, layers, strength, metric and class of prompts: what
-- steering along an axis does, with its interval, next to the controls of the same
-- strength. Each control is a row, too.
--
-- axis_name: its name (axes.name)
-- axis_kind: its axes.kind: native, pulled_back (a universal axis), random, ...
-- pull_back: transpose or pseudo_inverse; null for an axis in the model's space
-- pulled_back_from: name of the axis that was pulled back
-- prompts_class: positive, negative, or benign for texts without a class
-- shuffled_lower: lowest estimate of directions of shuffled labels
-- shuffled_upper: highest estimate of directions of shuffled labels
-- orthogonal_lower: lowest estimate of directions orthogonal to the axis
-- orthogonal_upper: highest estimate of directions orthogonal to the axis
-- judged_at: when the experiment was evaluated
create view v_interventions as
with
compared as (
    select
        *,
        min(estimate) filter (where role = 'shuffled_labels') over alike
            as shuffled_lower,
        max(estimate) filter (where role = 'shuffled_labels') over alike
            as shuffled_upper,
        min(estimate) filter (where role = 'orthogonal') over alike as orthogonal_lower,
        max(estimate) filter (where role = 'orthogonal') over alike as orthogonal_upper
    from stg_interventions
    window
        alike as (
            partition by
                experiment_id, layers, strength, metric, prompt_set, is_positive
        )
)

select
    compared.experiment_id,
    compared.axis_id,
    axes.name as axis_name,
    axes.kind as axis_kind,
    case when axes.kind = 'pulled_back' then axes.method end as pull_back,
    sources.name as pulled_back_from,
    compared.role,
    compared.model,
    compared.model_id,
    compared.layers,
    compared.mode,
    compared.metric,
    compared.prompt_set,
    case
        when compared.is_positive is null then 'benign'
        when compared.is_positive then 'positive'
        else 'negative'
    end as prompts_class,
    compared.verdict,
    compared.strength,
    compared.unsteered,
    compared.estimate,
    compared.lower,
    compared.upper,
    compared.random_lower,
    compared.random_upper,
    compared.shuffled_lower,
    compared.shuffled_upper,
    compared.orthogonal_lower,
    compared.orthogonal_upper,
    compared.p_value,
    compared.random_count,
    compared.prompt_count,
    compared.is_positive,
    runs.started_at as judged_at
from compared
inner join stg_axes as axes using (axis_id)
left join stg_runs as runs on compared.run_id = runs.run_id
left join stg_axes as sources
    on
        axes.kind = 'pulled_back'
        and axes.source_axis_ids[1] = sources.axis_id;
