-- One row per study, model and prompt set: AUROCs on prompts that no direction was
-- fitted on. On the set that directions were fitted on they are out of fold.
--
-- is_out_of_fold: whether this is the set that directions were fitted on
-- native: AUROC of the model's native direction
-- universal: AUROC of the universal axis
-- leave_one_out: AUROC of the axis made without this model
-- leave_one_out_ceiling: its upper end at 95 % for all of the study's models together
-- leave_one_out_null: what it has to exceed: 0.5, or the 95th percentile of random
--   directions or of shuffled alignments, whichever is greater
-- random_direction: 95th percentile of the AUROC of random directions
-- shuffled_alignment: the same of the universal axis by alignments of shuffled rows
-- gain: universal minus native, on the same prompts; interval paired
-- gain_ceiling: its upper end at 95 % for all of the study's models together
-- p_value: two-sided, of no gain
create view v_held_out as
with
evaluations as (
    select
        *,
        replace(scorer, '_cross_validated', '') as figure
    from stg_evaluations
    where
        model is not null
        and prompt_set is not null
        and metric in ('auroc', 'auroc_difference')
        and not is_in_sample
),

areas as (
    select
        study_id,
        model,
        prompt_set,
        bool_or(scorer != figure) as is_out_of_fold,
        pick(estimate, figure, 'native') as native,
        pick(lower, figure, 'native') as native_lower,
        pick(upper, figure, 'native') as native_upper,
        pick(estimate, figure, 'universal') as universal,
        pick(lower, figure, 'universal') as universal_lower,
        pick(upper, figure, 'universal') as universal_upper,
        pick(estimate, figure, 'leave_one_out') as leave_one_out,
        pick(lower, figure, 'leave_one_out') as leave_one_out_lower,
        pick(upper, figure, 'leave_one_out') as leave_one_out_upper,
        pick(upper, figure, 'random_direction') as random_direction,
        pick(upper, figure, 'shuffled_alignment') as shuffled_alignment,
        -pick(estimate, figure, 'native_minus_universal') as gain,
        -pick(upper, figure, 'native_minus_universal') as gain_lower,
        -pick(lower, figure, 'native_minus_universal') as gain_upper,
        pick(p_value, figure, 'native_minus_universal') as p_value,
        -- Standard errors to either side in an interval for all models together.
        simultaneous_z(count(*) over (partition by study_id, prompt_set)) as z
    from evaluations
    group by study_id, model, prompt_set
    having pick(estimate, figure, 'universal') is not null
)

select
    * exclude (z),
    greatest(0.5, random_direction, shuffled_alignment) as leave_one_out_null,
    least(
        leave_one_out
        + (leave_one_out_upper - leave_one_out) * z / simultaneous_z(1),
        1.0
    ) as leave_one_out_ceiling,
    gain + (gain_upper - gain) * z / simultaneous_z(1) as gain_ceiling
from areas;
