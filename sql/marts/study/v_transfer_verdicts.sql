-- One row per transfer study and method: whether thresholds transfer between models.
--
-- pair_count: ordered pairs of two different models
-- own_accuracy: mean balanced accuracy of each model's threshold on itself
-- transferred_accuracy: the same of thresholds from other models
-- mean_loss: mean of what a threshold from another model loses
-- worst_loss: the largest loss of any pair
-- worst_shift: the largest absolute shift of the false-positive rate
-- carrying_pair_count: pairs that transfer (v_threshold_transfer.is_carried_over)
-- failing_pair_count: pairs that are shown not to (v_threshold_transfer.is_failing)
-- verdict: carries over or fails (all pairs do), undecided (none fails, not all carry
--   over), or mixed
create view v_transfer_verdicts as
select
    study_id,
    any_value(axis_id) as axis_id,
    any_value(prompt_set) as prompt_set,
    method,
    case
        when bool_and(is_carried_over or is_own) then 'carries over'
        when bool_and(is_failing or is_own) then 'fails'
        when bool_or(is_failing and not is_own) then 'mixed'
        else 'undecided'
    end as verdict,
    count(*) filter (where not is_own) as pair_count,
    avg(balanced_accuracy) filter (where is_own) as own_accuracy,
    avg(balanced_accuracy) filter (where not is_own) as transferred_accuracy,
    avg(accuracy_loss) filter (where not is_own) as mean_loss,
    max(accuracy_loss) filter (where not is_own) as worst_loss,
    max(abs(false_positive_shift)) filter (where not is_own) as worst_shift,
    count(*) filter (where is_carried_over and not is_own) as carrying_pair_count,
    count(*) filter (where is_failing and not is_own) as failing_pair_count
from v_threshold_transfer
group by study_id, method
having bool_or(is_own) and not bool_and(is_own);
