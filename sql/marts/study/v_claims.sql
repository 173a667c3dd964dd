-- One row per study, claim of the source study and prompt set: the verdict of the
-- stored rows, by rules fixed beforehand (docs/methods.md). The view v_claim_CLAIM has
-- a row per model.
--
-- claim: the claim's name
-- position: its position in the list of claims
-- claim: its name
-- text: the claim in words
-- verdict: supported, not supported or undecided
-- model: the model (or pair) that decides: the one with the smallest estimate relative
--   to the null
-- estimate: its value in the view of the claim
-- null_value: the value that the interval has to exclude
-- to_decide: what would decide it, if it is undecided
create view v_claims as
with
claims (position, claim, text, to_decide) as (
    values
    (
        1,
        'shared_axis',
        'The models share an axis.',
        'a group of at least two models'
    ),
    (
        2,
        'universal_at_least_native',
        'The universal axis is at least as good as a model''s own.',
        'prompts that are held out'
    ),
    (
        3,
        'gains_for_weak_models',
        'A model whose own direction is weak gains by it.',
        'judge it on another labelled set: axes study ... --evaluate SET'
    ),
    (
        4,
        'no_threshold_transfer',
        'No threshold carries over from one model to another.',
        'axes transfer AXIS --prompts SET, AXIS the universal one'
    ),
    (
        5,
        'regime_break',
        'In some model the universal axis breaks down.',
        'prompts that are held out'
    ),
    (
        6,
        'upward_drift',
        'The positive class drifts upward while a model speaks.',
        'axes ingest traces MODEL --prompts SET, then axes drift'
    )
),

asked as (
    select distinct
        evaluations.study_id,
        evaluations.prompt_set,
        claims.*
    from stg_evaluations as evaluations, claims
    where
        evaluations.metric = 'auroc'
        and evaluations.scorer = 'universal'
),

per_model as (
    select
        'shared_axis' as claim,
        *
    from v_claim_shared_axis
    union all by name
    select
        'universal_at_least_native' as claim,
        *
    from v_claim_universal_at_least_native
    union all by name
    select
        'gains_for_weak_models' as claim,
        *
    from v_claim_gains_for_weak_models
    union all by name
    select
        'no_threshold_transfer' as claim,
        *
    from v_claim_no_threshold_transfer
    union all by name
    select
        'regime_break' as claim,
        *
    from v_claim_regime_break
    union all by name
    select
        'upward_drift' as claim,
        *
    from v_claim_upward_drift
),

decided as (
    select
        study_id,
        prompt_set,
        claim,
        -- A break is of some model, all else is of every model.
        case claim
            when 'regime_break' then bool_or(is_met)
            else bool_and(is_met)
        end as is_supported,
        case claim
            when 'regime_break' then bool_and(is_refuted)
            else bool_or(is_refuted)
        end as is_refuted,
        arg_min(model, estimate - null_value) as model,
        arg_min(estimate, estimate - null_value) as estimate,
        arg_min(lower, estimate - null_value) as lower,
        arg_min(upper, estimate - null_value) as upper,
        arg_min(null_value, estimate - null_value) as null_value
    from per_model
    group by study_id, prompt_set, claim
),

final as (
    select
        asked.study_id,
        asked.position,
        asked.claim,
        asked.text,
        asked.prompt_set,
        case
            when decided.is_supported then 'supported'
            when decided.is_refuted then 'not supported'
            else 'undecided'
        end as verdict,
        decided.model,
        decided.estimate,
        decided.lower,
        decided.upper,
        decided.null_value,
        case
            when decided.claim is null then asked.to_decide
            when not decided.is_supported and not decided.is_refuted
                then 'more prompts: the interval does not clear the null'
        end as to_decide
    from asked
    left join decided using (study_id, claim, prompt_set)
)

select * from final;
