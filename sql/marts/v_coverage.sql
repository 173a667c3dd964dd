-- One row per model, prompt set, layer, site, pooling and template: prompts of the set
-- with an activation, and without. Every set is held against whatever layers, sites,
-- poolings and templates the model has rows of; a model without rows has one row per
-- set, its layer null. Opens no vectors.
--
-- prompt_count: prompts of the set
-- present_count: those with an activation
-- missing_count: those without
-- coverage: present_count / prompt_count
-- model_id: the exact model: weights, tokenizer, dtype (models.model_id)
create view v_coverage as
with
models as (
    select
        model,
        model_id
    from stg_models
),

prompts as (
    select
        prompt_set,
        prompt_id
    from stg_prompts
),

activations as (
    select distinct
        model,
        model_id,
        prompt_id,
        layer,
        site,
        pooling,
        template
    from stg_activations
),

stored as (
    select distinct
        model,
        model_id,
        layer,
        site,
        pooling,
        template
    from activations
),

prompt_sets as (
    select
        prompt_set,
        count(*) as prompt_count
    from prompts
    group by prompt_set
),

wanted as (
    select
        models.model,
        models.model_id,
        prompt_sets.prompt_set,
        stored.layer,
        stored.site,
        stored.pooling,
        stored.template,
        prompt_sets.prompt_count
    from models
    cross join prompt_sets
    left join stored
        on models.model = stored.model and models.model_id = stored.model_id
),

present as (
    select
        activations.model,
        activations.model_id,
        prompts.prompt_set,
        activations.layer,
        activations.site,
        activations.pooling,
        activations.template,
        count(*) as present_count
    from activations
    inner join prompts on activations.prompt_id = prompts.prompt_id
    group by all
),

final as (
    select
        wanted.model,
        wanted.model_id,
        wanted.prompt_set,
        wanted.layer,
        wanted.site,
        wanted.pooling,
        wanted.template,
        wanted.prompt_count,
        coalesce(present.present_count, 0) as present_count,
        wanted.prompt_count - coalesce(present.present_count, 0) as missing_count,
        coalesce(present.present_count, 0) / wanted.prompt_count as coverage
    from wanted
    left join present
        on
            wanted.model = present.model
            and wanted.model_id = present.model_id
            and wanted.prompt_set = present.prompt_set
            and wanted.layer = present.layer
            and wanted.site = present.site
            and wanted.pooling = present.pooling
            and wanted.template = present.template
)

select * from final;
