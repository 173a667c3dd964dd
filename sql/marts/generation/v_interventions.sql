-- One row per experiment, axis, layers, strength, metric and class of prompts: what
-- steering along an axis does, with its interval, next to the controls of the same
-- strength. Each control is a row, too.
--
-- axis_id: the axis steered along (axes.axis_id)
-- axis_name: its name (axes.name)
-- axis_kind: its axes.kind: native, pulled_back (a universal axis), random, ...
-- pull_back: transpose or pseudo_inverse; null for an axis in the model's space
-- pulled_back_from: name of the axis that was pulled back
-- prompt_set: the prompts it was measured on
-- prompts_class: positive, negative, or benign for texts without a class
-- shuffled_lower: lowest estimate of directions of shuffled labels
-- shuffled_upper: highest estimate of directions of shuffled labels
-- orthogonal_lower: lowest estimate of directions orthogonal to the axis
-- orthogonal_upper: highest estimate of directions orthogonal to the axis
-- judged_at: when the experiment was evaluated
create view v_interventions as
with
interventions as (select * from stg_interventions),

axes as (select * from stg_axes),

runs as (select * from stg_runs),

beside as (
    select
        experiment_id,
        layers,
        strength,
        metric,
        prompt_set,
        is_positive,
        min(estimate) filter (where role = 'shuffled_labels') as shuffled_lower,
        pick(estimate, role, 'shuffled_labels') as shuffled_upper,
        min(estimate) filter (where role = 'orthogonal') as orthogonal_lower,
        pick(estimate, role, 'orthogonal') as orthogonal_upper
    from interventions
    group by all
),

final as (
    select
        interventions.experiment_id,
        interventions.axis_id,
        axes.name as axis_name,
        axes.kind as axis_kind,
        case when axes.kind = 'pulled_back' then axes.method end as pull_back,
        sources.name as pulled_back_from,
        interventions.role,
        interventions.model,
        interventions.model_id,
        interventions.layers,
        interventions.mode,
        interventions.metric,
        interventions.prompt_set,
        case
            when interventions.is_positive is null then 'benign'
            when interventions.is_positive then 'positive'
            else 'negative'
        end as prompts_class,
        interventions.verdict,
        interventions.strength,
        interventions.unsteered,
        interventions.estimate,
        interventions.lower,
        interventions.upper,
        interventions.random_lower,
        interventions.random_upper,
        beside.shuffled_lower,
        beside.shuffled_upper,
        beside.orthogonal_lower,
        beside.orthogonal_upper,
        interventions.p_value,
        interventions.random_count,
        interventions.prompt_count,
        interventions.is_positive,
        runs.started_at as judged_at
    from interventions
    inner join axes using (axis_id)
    left join runs on interventions.run_id = runs.run_id
    left join axes as sources
        on
            axes.kind = 'pulled_back'
            and axes.source_axis_ids[1] = sources.axis_id
    inner join beside
        on
            interventions.experiment_id = beside.experiment_id
            and interventions.layers = beside.layers
            and interventions.strength is not distinct from beside.strength
            and interventions.metric = beside.metric
            and interventions.prompt_set = beside.prompt_set
            and interventions.is_positive is not distinct from beside.is_positive
)

select * from final;
