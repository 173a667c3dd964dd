-- One row per study, prompt set and model, of the claim that the universal axis fails
-- on some models whose native direction works.
--
-- estimate: AUROC of the universal axis minus that of the native one, same prompts
-- null_value: -0.2, the loss that is called a break
-- is_met: the interval lies below the null (at 95 % for all models together)
-- is_refuted: it lies above
create view v_claim_regime_break as
select
    study_id,
    prompt_set,
    model,
    gain as estimate,
    gain_lower as lower,
    gain_upper as upper,
    -0.2 as null_value,
    gain_ceiling < -0.2 as is_met,
    gain_lower > -0.2 as is_refuted
from v_held_out
where gain is not null;
