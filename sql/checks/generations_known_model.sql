-- Completions of models that are not registered.
select
    generations.model_id,
    count(*) as generation_count
from stg_generations as generations
left join stg_models as models using (model_id)
where models.model_id is null
group by generations.model_id;
