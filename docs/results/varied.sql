-- One block per choice; all other choices are those of the study above. AUROCs are
-- those of prompts that no direction was fitted on; `tpr` is that of the universal axis
-- at 1 % false positives.
with
studies as (
    select
        study_id,
        prompts,
        varied
    from v_studies
    where
        label = 'demo'
        and prompts in ('demo_safety', 'safety_600')
        and (direction = 'mean_diff' or 'varied' like 'direction')
        and (alignment = 'ridge' or 'varied' like 'alignment')
        and (ridge_lambda is null or 'varied' like 'ridge_lambda')
        and (pooling = 'last5_mean' or 'varied' like 'pooling')
        and universal = 'svd'
        and lambda_policy = 'held_out'
        and template = 'raw'
    qualify
        row_number() over (
            partition by prompts, varied order by started_at desc, study_id asc
        ) = 1
),

found as (
    select
        study_id,
        model,
        prompt_set,
        pick(estimate, metric, 'tpr_at_fpr_0.01') as tpr
    from evaluations
    where replace(scorer, '_cross_validated', '') = 'universal' and not is_in_sample
    group by all
)

select
    held_out.prompt_set,
    studies.varied,
    held_out.model,
    results.cosine_leave_one_out as cosine,
    results.alignment_r2 as r2,
    results.ridge_lambda as lambda_used,
    held_out.native,
    held_out.native_lower,
    held_out.native_upper,
    held_out.universal,
    held_out.universal_lower,
    held_out.universal_upper,
    held_out.leave_one_out,
    found.tpr
from studies
inner join v_held_out as held_out using (study_id)
inner join v_study as results using (study_id, model, prompt_set)
inner join found using (study_id, model, prompt_set)
qualify count(distinct studies.varied) over (partition by held_out.prompt_set) > 1
order by held_out.prompt_set, studies.varied nulls last, held_out.model;
