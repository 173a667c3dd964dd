-- One row per study, prompt set and model, of the claim that the universal axis
-- separates the classes at least as well as the model's native direction.
--
-- estimate: AUROC of the universal axis minus that of the native one, same prompts
-- null_value: -0.02, the loss that is still called none
-- is_met: the interval lies above the null
-- is_refuted: it lies below (at 95 % for all models together)
create view v_claim_universal_at_least_native as
select
    study_id,
    prompt_set,
    model,
    gain as estimate,
    gain_lower as lower,
    gain_upper as upper,
    -0.02 as null_value,
    gain_lower > -0.02 as is_met,
    gain_ceiling < -0.02 as is_refuted
from v_held_out
where gain is not null;
