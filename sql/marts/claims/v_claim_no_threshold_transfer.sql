-- One row per study, prompt set and ordered pair of models, of the claim that no
-- threshold on the universal axis transfers from one model to another. From `axes
-- transfer` on the study's universal axis, projections as they are, on prompts that no
-- direction was fitted on.
--
-- model: the model that the threshold is chosen on, and the one that it is applied to
-- models: the two
-- estimate: balanced accuracy lost against the model's own threshold, paired
-- null_value: 0
-- is_met: the pair loses accuracy, or shifts the false-positive rate, at the level 0.05
--   (Holm over the pairs), and does not transfer
-- is_refuted: it transfers: complete intervals within a loss of 0.05 and within a shift
--   of 0.1 either way
create view v_claim_no_threshold_transfer as
with
transfers as (
    select
        *,
        accuracy_loss_upper <= 0.05
        and false_positive_shift_lower >= -0.1
        and false_positive_shift_upper <= 0.1 as carries_over
    from v_threshold_transfer
    where method = 'uncalibrated' and not is_own and not is_in_sample
),

studies as (
    select distinct
        study_id,
        axis_id
    from stg_evaluations
    where scorer = 'universal' and metric = 'auroc'
),

final as (
    select
        studies.study_id,
        transfers.prompt_set,
        transfers.fitted_on || ' to ' || transfers.model as model,
        [transfers.fitted_on, transfers.model] as models,
        transfers.accuracy_loss as estimate,
        transfers.accuracy_loss_lower as lower,
        transfers.accuracy_loss_upper as upper,
        0.0 as null_value,
        coalesce(
            not transfers.carries_over
            and (
                (transfers.accuracy_loss > 0 and transfers.accuracy_loss_p < 0.05)
                or transfers.false_positive_shift_p < 0.05
            ),
            false
        ) as is_met,
        coalesce(transfers.carries_over, false) as is_refuted
    from transfers
    inner join studies using (axis_id)
)

select * from final;
