-- One row per study, claim of the source study and prompt set: the verdict of the
-- stored rows, by rules fixed beforehand (docs/claims.md). v_claim_estimates has a row
-- per model.
--
-- position: its position in the list of claims
-- claim: the claim's name
-- text: the claim in words
-- verdict: cannot tell, supported, not supported or undecided
-- cause: why the numbers cannot tell: the first premise that fails (v_claim_premises)
-- model: the model (or pair) that decides: the one with the smallest estimate relative
--   to the null, of equal ones the first by name
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
    ),
    (
        7,
        'steering',
        'Steering a model along the axis of the others changes what it writes.',
        'steers',
        'no effect',
        'axes intervene MODEL --axis AXIS --covariance 200 --shuffled 20, AXIS made '
        || 'without MODEL, for each model'
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

estimates as (select * from v_claim_estimates),

-- What the numbers say of a model counts only if no premise stops that answer, and
-- where they say neither, only if none stops the first. `met` and `refuted` of a claim
-- are what its answers say of the axis.
stopped as (
    select
        estimates.study_id,
        estimates.prompt_set,
        estimates.claim,
        estimates.model,
        min((premises.position, premises.cause)) filter (
            where premises.cause is not null
        ) as stop
    from estimates
    inner join claims using (claim)
    inner join v_claim_premises as premises
        on
            estimates.study_id = premises.study_id
            and estimates.prompt_set = premises.prompt_set
            and list_contains(estimates.models, premises.model)
    where
        (not estimates.is_refuted and list_contains(premises.stops, claims.met))
        or (not estimates.is_met and list_contains(premises.stops, claims.refuted))
    group by
        estimates.study_id, estimates.prompt_set, estimates.claim, estimates.model
    having
        bool_or(
            list_contains(
                premises.stops, if(estimates.is_refuted, claims.refuted, claims.met)
            )
        )
),

judged as (
    select
        estimates.*,
        stopped.stop,
        coalesce(estimates.is_met and stopped.stop is null, false) as is_shown,
        coalesce(estimates.is_refuted and stopped.stop is null, false) as is_denied,
        estimates.estimate - estimates.null_value as excess
    from estimates
    left join stopped using (study_id, prompt_set, claim, model)
),

verdicts as (
    select
        study_id,
        prompt_set,
        claim,
        -- A break is of some model, all else is of every model.
        case
            when if(claim = 'regime_break', bool_or(is_shown), bool_and(is_shown))
                then 'supported'
            when if(claim = 'regime_break', bool_and(is_denied), bool_or(is_denied))
                then 'not supported'
            when count(stop) > 0 then 'cannot tell'
            else 'undecided'
        end as verdict,
        if(verdict = 'cannot tell', min(stop)[2], null) as cause,
        arg_min(model, excess order by model) as model,
        arg_min_null(estimate, excess order by model) as estimate,
        arg_min_null(lower, excess order by model) as lower,
        arg_min_null(upper, excess order by model) as upper,
        arg_min_null(null_value, excess order by model) as null_value
    from judged
    group by study_id, prompt_set, claim
),

final as (
    select
        asked.study_id,
        asked.position,
        asked.claim,
        asked.text,
        asked.prompt_set,
        coalesce(verdicts.verdict, 'undecided') as verdict,
        verdicts.cause,
        verdicts.model,
        verdicts.estimate,
        verdicts.lower,
        verdicts.upper,
        verdicts.null_value,
        -- Quantiles of the normal distribution: 97.5 % and 80 %.
        (verdicts.upper - verdicts.lower) / 2
        * (1.959964 + 0.841621) / 1.959964 as smallest_effect,
        count(distinct asked.study_id) over (
            partition by asked.prompt_set
        ) as study_count,
        4 as version,
        case
            when verdicts.claim is null then asked.to_decide
            when verdicts.verdict = 'undecided' and asked.claim = 'steering'
                then 'more prompts, or the models that are not steered yet'
            when verdicts.verdict = 'undecided'
                then 'more prompts: the interval does not clear the null'
        end as to_decide
    from asked
    left join verdicts using (study_id, claim, prompt_set)
)

select * from final;
