-- One row per study, prompt set and model, of the claim that the models share an axis:
-- the axis made without the model works on it.
--
-- estimate: AUROC of the leave-one-out axis on prompts not fitted on
-- null_value: 0.5, or the 95th percentile of random directions or of shuffled
--   alignments, whichever is greater
-- is_met: the interval lies above the null
-- is_refuted: it does not, and no model's interval reaches 0.6, or this one's lies
--   below 0.5 (at 95 % for all models together)
create view v_claim_shared_axis as
with
final as (
    select
        study_id,
        prompt_set,
        model,
        leave_one_out as estimate,
        leave_one_out_lower as lower,
        leave_one_out_upper as upper,
        greatest(0.5, random_direction, shuffled_alignment) as null_value,
        coalesce(leave_one_out_lower > null_value, false) as is_met,
        not is_met
        and coalesce(
            leave_one_out_ceiling < 0.5
            or max(leave_one_out_upper) over (partition by study_id, prompt_set) < 0.6,
            false
        ) as is_refuted
    from v_held_out
    where leave_one_out is not null
)

select * from final;
