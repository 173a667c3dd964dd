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
-- control_count: controls of the claim `steering`: random directions with the
--   covariance of activations, and directions of shuffled labels
-- control_bound: 95th percentile of the sizes of their effects
-- control_p_value: rank of the effect's size among theirs
-- test_count: tests of the experiment, if this row is one: of each axis, layer and
--   class over all strengths, on the best of its measurements of behaviour (labels of
--   completions, else refusal phrases in them, else how they open)
-- control_p_value_adjusted: times test_count (Bonferroni)
-- source_axis_id: the axis that was pulled back, else the axis
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
        max(estimate) filter (where role = 'orthogonal') over alike as orthogonal_upper,
        list(abs(estimate)) filter (
            where role in ('covariance', 'shuffled_labels')
        ) over alike as controls,
        coalesce(len(controls), 0) as control_count,
        -- Of behaviour, the best evidence last.
        case
            when control_count = 0 or role != 'axis' or is_positive is null then 0
            when metric in ('projection_shift', 'repetition', 'longest_repeat') then 0
            when ends_with(metric, '_openers') then 1
            when metric = 'refusal_substring' then 2
            else 3
        end as evidence
    from stg_interventions
    window
        alike as (
            partition by
                experiment_id, layers, strength, metric, prompt_set, is_positive
        )
),

tests as (
    select
        *,
        (1 + len(list_filter(controls, lambda size: size >= abs(estimate))))
        / (1 + control_count) as control_p_value,
        evidence > 0
        and evidence = max(evidence) over experiment
        and (strength is null) = bool_or(strength is null) over experiment as is_test
    from compared
    window experiment as (partition by experiment_id)
)

select
    tests.experiment_id,
    tests.axis_id,
    axes.name as axis_name,
    axes.kind as axis_kind,
    case when axes.kind = 'pulled_back' then axes.method end as pull_back,
    sources.name as pulled_back_from,
    tests.role,
    tests.model,
    tests.model_id,
    tests.layers,
    tests.mode,
    tests.metric,
    tests.prompt_set,
    case
        when tests.is_positive is null then 'benign'
        when tests.is_positive then 'positive'
        else 'negative'
    end as prompts_class,
    tests.verdict,
    tests.strength,
    tests.unsteered,
    tests.estimate,
    tests.lower,
    tests.upper,
    tests.random_lower,
    tests.random_upper,
    tests.shuffled_lower,
    tests.shuffled_upper,
    tests.orthogonal_lower,
    tests.orthogonal_upper,
    list_aggregate(tests.controls, 'quantile_cont', 0.95) as control_bound,
    tests.p_value,
    case
        when tests.is_test
            then count(*) over (partition by tests.experiment_id, tests.is_test)
    end as test_count,
    case when tests.role = 'axis' then tests.control_p_value end as control_p_value,
    case when tests.is_test then least(tests.control_p_value * test_count, 1.0) end
        as control_p_value_adjusted,
    tests.random_count,
    tests.control_count,
    tests.prompt_count,
    coalesce(sources.axis_id, tests.axis_id) as source_axis_id,
    tests.is_positive,
    runs.started_at as judged_at
from tests
inner join stg_axes as axes using (axis_id)
left join stg_runs as runs on tests.run_id = runs.run_id
left join stg_axes as sources
    on
        axes.kind = 'pulled_back'
        and axes.source_axis_ids[1] = sources.axis_id;
