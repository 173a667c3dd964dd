-- Out of fold, the AUROC of a subspace by its number of dimensions, next to the 95th
-- percentile of shuffled labels. `gain` is over the model's own direction and
-- `last_gain` over one dimension less, both in the same folds, with p-values corrected
-- over the ranks. `angle` is the largest angle between the subspaces of two halves.
with
latest as (
    select
        evaluations.model,
        evaluations.prompt_set,
        arg_max(
            evaluations.study_id, runs.started_at order by evaluations.study_id
        ) as study_id
    from evaluations
    inner join runs on evaluations.run_id = runs.run_id
    where evaluations.scorer = 'subspace' and evaluations.metric = 'auroc'
    group by evaluations.model, evaluations.prompt_set
),

judged as (
    select *
    from evaluations
    where component is not null and study_id in (select latest.study_id from latest)
)

select
    prompt_set,
    model,
    component as rank,
    pick(estimate, scorer || '.' || metric, 'subspace.auroc') as auroc,
    pick(lower, scorer || '.' || metric, 'subspace.auroc') as auroc_lower,
    pick(upper, scorer || '.' || metric, 'subspace.auroc') as auroc_upper,
    pick(upper, scorer, 'subspace_shuffled_labels') as shuffled_95,
    pick(estimate, scorer, 'subspace_minus_native') as gain,
    pick(lower, scorer, 'subspace_minus_native') as gain_lower,
    pick(upper, scorer, 'subspace_minus_native') as gain_upper,
    pick(p_value_adjusted, scorer, 'subspace_minus_native') as gain_p_value,
    pick(estimate, scorer, 'subspace_gain') as last_gain,
    pick(p_value_adjusted, scorer, 'subspace_gain') as last_gain_p_value,
    pick(estimate, metric, 'angle_of_halves') as angle
from judged
group by prompt_set, model, component
order by prompt_set, model, component;
