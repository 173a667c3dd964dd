-- One row per study, prompt set and its weakest model, of the claim that models whose
-- native direction is weak gain by the universal axis. The weakest model has the lowest
-- out-of-fold native AUROC on the set that directions were fitted on. On that set it
-- would gain by selection, so only other sets have rows.
--
-- estimate: AUROC of the universal axis minus that of the native one, same prompts
-- null_value: 0
-- is_met: the interval lies above the null
-- is_refuted: it lies below 0.02, the smallest difference that counts as a gain
create view v_claim_gains_for_weak_models as
with
weakest as (
    select
        study_id,
        arg_min(model, native) as model
    from v_held_out
    where is_out_of_fold
    group by study_id
    having count(*) > 1
)

select
    held_out.study_id,
    held_out.prompt_set,
    held_out.model,
    held_out.gain as estimate,
    held_out.gain_lower as lower,
    held_out.gain_upper as upper,
    0.0 as null_value,
    held_out.gain_lower > 0 as is_met,
    held_out.gain_lower <= 0 and held_out.gain_upper < 0.02 as is_refuted
from v_held_out as held_out
inner join weakest using (study_id, model)
where not held_out.is_out_of_fold and held_out.gain is not null;
