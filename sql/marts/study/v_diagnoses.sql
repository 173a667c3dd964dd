-- One row per study, model and prompt set: the diagnosis, and cosine next to AUROC.
-- Where the cosine is high and the AUROC below one half, the other columns give the
-- cause (docs/methods.md).
--
-- diagnosis: the first check with a fault, in plain words, or healthy
-- cosine: of the model's aligned direction with the shared axis
-- auroc: of the shared axis on these prompts
-- native_auroc: of the model's native direction, in sample where it was fitted on them
-- normal_auroc: what the class means would give to classes of normal shape
-- separation: distance of the class means along the axis, in standard deviations of the
--   difference of two rows
-- largest_separation: the most that this AUROC allows (Cantelli)
-- trimmed_gap: distance of the class means without the outer fifths of each class
-- tracking_benign: rank correlation with the reference's projections, benign prompts
-- tracking_positive: the same within the positive class
-- tracking_negative: the same within the negative class
-- shift: distance of the midpoint from the reference's, in within-class standard
--   deviations
-- is_contradiction: whether cosine and AUROC contradict each other
create view v_diagnoses as
select
    study_id,
    model,
    prompt_set,
    pick(verdict, check_name, 'diagnosis') as diagnosis,
    pick(value, (check_name, metric), ('disagreement', 'cosine')) as cosine,
    pick(value, (check_name, metric), ('disagreement', 'auroc')) as auroc,
    pick(value, (check_name, metric), ('disagreement', 'auroc_lower')) as auroc_lower,
    pick(value, (check_name, metric), ('disagreement', 'auroc_upper')) as auroc_upper,
    pick(value, (check_name, metric), ('disagreement', 'native_auroc')) as native_auroc,
    pick(value, metric, 'normal_auroc') as normal_auroc,
    pick(value, metric, 'separation') as separation,
    pick(value, metric, 'largest_separation') as largest_separation,
    pick(value, metric, 'trimmed_gap') as trimmed_gap,
    pick(value, metric, 'tracking_benign') as tracking_benign,
    pick(value, metric, 'tracking_positive') as tracking_positive,
    pick(value, metric, 'tracking_negative') as tracking_negative,
    pick(value, metric, 'shift') as shift,
    bool_or(is_fault) filter (where check_name = 'disagreement') as is_contradiction
from v_diagnostics
group by study_id, model, prompt_set;
