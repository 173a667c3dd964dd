-- What is the distance between the two prompts of a pair, relative to the norm?
-- Reads the vectors of one layer.
select
    safe.model,
    count(*) as pairs,
    avg(cosine(safe.vector, unsafe.vector))::decimal(9, 2) as mean_cosine,
    avg(euclidean(safe.vector, unsafe.vector) / safe.norm)::decimal(9, 2) as distance
from v_activations as safe
inner join v_activations as unsafe
    on
        safe.pair_id = unsafe.pair_id
        and safe.model_id = unsafe.model_id
        and unsafe.is_positive
where
    not safe.is_positive
    and safe.model = 'smollm2-135m' and safe.layer = 23
    and unsafe.model = 'smollm2-135m' and unsafe.layer = 23
    and safe.prompt_set = 'demo_safety' and unsafe.prompt_set = 'demo_safety'
group by safe.model;
