-- One row per transfer study and method: whether thresholds transfer between models.
--
-- pair_count: ordered pairs of two different models
-- own_accuracy: mean balanced accuracy of each model's threshold on itself
-- transferred_accuracy: the same of thresholds from other models
-- mean_loss: mean of what a threshold from another model loses
-- worst_loss: the largest loss of any pair
-- worst_shift: the largest absolute shift of the false-positive rate
-- carrying_pair_count: pairs whose complete intervals lie within a loss of 0.05 and
--   within a shift of 0.1 either way
-- failing_pair_count: other pairs that lose or shift at the level 0.05, Holm-adjusted
-- verdict: carries over or fails (all pairs do), undecided (none fails, not all carry
--   over), or mixed
create view v_transfer_verdicts as
with
pairs as (
    select
        *,
        accuracy_loss_upper <= 0.05
        and false_positive_shift_lower >= -0.1
        and false_positive_shift_upper <= 0.1 as carries_over,
        (accuracy_loss > 0 and accuracy_loss_p < 0.05)
        or false_positive_shift_p < 0.05 as fails
    from v_threshold_transfer
    where not is_own
),

own as (
    select
        study_id,
        method,
        avg(balanced_accuracy) as own_accuracy
    from v_threshold_transfer
    where is_own
    group by study_id, method
),

counted as (
    select
        study_id,
        any_value(axis_id) as axis_id,
        any_value(prompt_set) as prompt_set,
        method,
        count(*) as pair_count,
        avg(balanced_accuracy) as transferred_accuracy,
        avg(accuracy_loss) as mean_loss,
        max(accuracy_loss) as worst_loss,
        max(abs(false_positive_shift)) as worst_shift,
        count(*) filter (where carries_over) as carrying_pair_count,
        count(*) filter (where fails and not carries_over) as failing_pair_count
    from pairs
    group by study_id, method
),

final as (
    select
        counted.study_id,
        counted.axis_id,
        counted.prompt_set,
        counted.method,
        case
            when counted.carrying_pair_count = counted.pair_count then 'carries over'
            when counted.failing_pair_count = counted.pair_count then 'fails'
            when counted.failing_pair_count = 0 then 'undecided'
            else 'mixed'
        end as verdict,
        counted.pair_count,
        own.own_accuracy,
        counted.transferred_accuracy,
        counted.mean_loss,
        counted.worst_loss,
        counted.worst_shift,
        counted.carrying_pair_count,
        counted.failing_pair_count
    from counted
    inner join own using (study_id, method)
)

select * from final;
