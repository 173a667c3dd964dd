-- One row per model, prompt set, site, pooling, template and layer: how many prompts
-- are stored. Every set and every layer of the model is listed for every combination of
-- site, pooling and template with stored rows. Opens no vector file.
--
-- prompt_count: prompts of the set
-- row_count: those that are stored
-- missing_count: those that are not
create view v_coverage as
with
prompt_sets as (
    select
        prompt_set,
        count(*) as prompt_count
    from stg_prompts
    group by prompt_set
),

spaces as (
    select distinct
        stored.model,
        stored.model_id,
        stored.site,
        stored.pooling,
        stored.template,
        models.layer_count
    from v_stored as stored
    inner join stg_models as models using (model_id)
),

wanted as (
    select
        spaces.model,
        spaces.model_id,
        prompt_sets.prompt_set,
        spaces.site,
        spaces.pooling,
        spaces.template,
        unnest(range(spaces.layer_count))::smallint as layer,
        prompt_sets.prompt_count
    from spaces
    cross join prompt_sets
),

-- Prompts with the same layers are counted together before layers are parted.
alike as (
    select
        stored.model,
        stored.model_id,
        stg_prompts.prompt_set,
        stored.site,
        stored.pooling,
        stored.template,
        stored.layers,
        count(*) as prompt_count
    from v_stored as stored
    inner join stg_prompts using (prompt_id)
    group by all
),

parted as (
    select
        * exclude (layers),
        unnest(layers) as layer
    from alike
),

present as (
    select
        * exclude (prompt_count),
        sum(prompt_count)::bigint as row_count
    from parted
    group by all
)

select
    wanted.*,
    coalesce(present.row_count, 0) as row_count,
    wanted.prompt_count - coalesce(present.row_count, 0) as missing_count
from wanted
left join present
    using (model, model_id, prompt_set, site, pooling, template, layer);
