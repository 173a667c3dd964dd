-- One row per study, claim of the source study and prompt set: the verdict of the
-- stored rows, by rules fixed beforehand (docs/methods.md). The view v_claim_CLAIM has
-- a row per model.
--
-- claim: the claim's name
-- position: its position in the list of claims
-- claim: its name
-- text: the claim in words
-- verdict: cannot tell, supported, not supported or undecided
-- cause: why the numbers cannot tell: the first premise that fails (v_claim_premises)
-- model: the model (or pair) that decides: the one with the smallest estimate relative
--   to the null
-- estimate: its value in the view of the claim
-- null_value: the value that the interval has to exclude
-- smallest_effect: distance from null_value that such an interval would show in four of
--   five studies
-- study_count: studies that were run on these prompts: each is another chance
-- version: of the rules
-- to_decide: what would decide it, if it is undecided
create view v_claims as
with
claims (position, claim, text, met, refuted, to_decide) as (
    values
    (
        1,
        'shared_axis',
        'The models share an axis.',
        'shared',
        'not shared',
        'a group of at least two models'
    ),
    (
        2,
        'universal_at_least_native',
        'The universal axis is at least as good as a model''s own.',
        'shared',
        'not shared',
        'prompts that are held out'
    ),
    (
        3,
        'gains_for_weak_models',
        'A model whose own direction is weak gains by it.',
        'shared',
        'not shared',
        'judge it on another labelled set: axes study ... --evaluate SET'
    ),
    (
        4,
        'no_threshold_transfer',
        'No threshold carries over from one model to another.',
        'not shared',
        'shared',
        'axes transfer AXIS --prompts SET, AXIS the universal one, SET held out'
    ),
    (
        5,
        'regime_break',
        'In some model the universal axis breaks down.',
        'break',
        'shared',
        'prompts that are held out'
    ),
    (
        6,
        'upward_drift',
        'The positive class drifts upward while a model speaks.',
        'shared',
        'not shared',
        'axes ingest traces MODEL --prompts SET, SET held out, then axes drift'
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

-- What the numbers say of a model counts only if no premise stops that answer, and
-- where they say neither, only if none stops the first. `met` and `refuted` of a claim
-- are what its answers say of the axis.
stopped as (
    select
        per_model.study_id,
        per_model.prompt_set,
        per_model.claim,
        per_model.model,
        arg_min(
            premises.cause, (premises.position, premises.cause)
        ) as cause,
        min((premises.position, premises.cause)) as position
    from per_model
    inner join claims using (claim)
    inner join v_claim_premises as premises
        on
            per_model.study_id = premises.study_id
            and per_model.prompt_set = premises.prompt_set
            and list_contains(
                coalesce(per_model.models, [per_model.model]), premises.model
            )
    where
        (not per_model.is_refuted and list_contains(premises.stops, claims.met))
        or (not per_model.is_met and list_contains(premises.stops, claims.refuted))
    group by
        per_model.study_id, per_model.prompt_set, per_model.claim, per_model.model
    having
        bool_or(
            list_contains(
                premises.stops, if(per_model.is_refuted, claims.refuted, claims.met)
            )
        )
),

judged as (
    select
        per_model.*,
        stopped.cause,
        stopped.position,
        coalesce(per_model.is_met and stopped.cause is null, false) as is_shown,
        coalesce(per_model.is_refuted and stopped.cause is null, false) as is_denied,
        per_model.estimate - per_model.null_value as excess
    from per_model
    left join stopped using (study_id, prompt_set, claim, model)
),

decided as (
    select
        study_id,
        prompt_set,
        claim,
        -- A break is of some model, all else is of every model.
        if(
            claim = 'regime_break', bool_or(is_shown), bool_and(is_shown)
        ) as is_supported,
        if(
            claim = 'regime_break', bool_and(is_denied), bool_or(is_denied)
        ) as is_refuted,
        arg_min(cause, position) as cause,
        arg_min(model, excess) as model,
        arg_min(estimate, excess) as estimate,
        arg_min(lower, excess) as lower,
        arg_min(upper, excess) as upper,
        arg_min(null_value, excess) as null_value
    from judged
    group by study_id, prompt_set, claim
),

verdicts as (
    select
        *,
        case
            when is_supported then 'supported'
            when is_refuted then 'not supported'
            when cause is not null then 'cannot tell'
            else 'undecided'
        end as verdict
    from decided
),

run_on as (
    select
        prompt_set,
        count(distinct study_id) as study_count
    from asked
    group by prompt_set
),

final as (
    select
        asked.study_id,
        asked.position,
        asked.claim,
        asked.text,
        asked.prompt_set,
        coalesce(verdicts.verdict, 'undecided') as verdict,
        if(verdicts.verdict = 'cannot tell', verdicts.cause, null) as cause,
        verdicts.model,
        verdicts.estimate,
        verdicts.lower,
        verdicts.upper,
        verdicts.null_value,
        -- Quantiles of the normal distribution: 97.5 % and 80 %.
        (verdicts.upper - verdicts.lower) / 2
        * (1.959964 + 0.841621) / 1.959964 as smallest_effect,
        run_on.study_count,
        2 as version,
        case
            when verdicts.claim is null then asked.to_decide
            when verdicts.verdict = 'undecided'
                then 'more prompts: the interval does not clear the null'
        end as to_decide
    from asked
    left join verdicts using (study_id, claim, prompt_set)
    inner join run_on using (prompt_set)
)

select * from final;
