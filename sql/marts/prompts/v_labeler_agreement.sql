-- One row per kind of thing labelled, model and pair of labelers (the names in order):
-- how far two labelers agree, over what both have labelled.
--
-- kind: completion, or prompt (in each prompt set that it is labelled in)
-- model: the completions' model; null for prompts
-- labeler: the first labeler by name
-- other_labeler: the second
-- count: completions or prompts that both labelled
-- both_positive: of them those that both call positive
-- only_first_positive: those that only `labeler` calls positive
-- only_other_positive: those that only `other_labeler` calls positive
-- both_negative: those that neither calls positive
-- agreement: share of them with the same class by both
-- kappa: Cohen's kappa of the two classes; null where both give one class throughout
create view v_labeler_agreement as
with
labelled as (
    select
        if(labels.generation_id is null, 'prompt', 'completion') as kind,
        models.model,
        labels.labeler,
        labels.is_positive,
        coalesce(
            labels.generation_id,
            labels.prompt_set || '/' || labels.prompt_id
        ) as labelled_id
    from stg_labels as labels
    left join stg_generations as models using (generation_id)
)

select
    labelled.kind,
    labelled.model,
    labelled.labeler,
    other.labeler as other_labeler,
    count(*) as count,
    count(*) filter (where labelled.is_positive and other.is_positive)
        as both_positive,
    count(*) filter (where labelled.is_positive and not other.is_positive)
        as only_first_positive,
    count(*) filter (where not labelled.is_positive and other.is_positive)
        as only_other_positive,
    count(*) filter (where not labelled.is_positive and not other.is_positive)
        as both_negative,
    avg((labelled.is_positive = other.is_positive)::int) as agreement,
    cohen_kappa(labelled.is_positive, other.is_positive) as kappa
from labelled
inner join labelled as other
    on
        labelled.kind = other.kind
        and labelled.labelled_id = other.labelled_id
        and labelled.labeler < other.labeler
group by all;
