-- One row per stored prompt, model, site, pooling, template and activation file.
-- Which layers of which prompts are in the warehouse, without opening a vector file:
-- read from the index of keys that every writer keeps.
--
-- pooling: how positions became one vector: last5_mean, ...
-- file: the Parquet file that holds the vectors; null where the index cannot be kept
-- layers: the layers that it holds of the prompt
create view v_stored as
select
    model,
    model_id,
    prompt_id,
    site,
    pooling,
    template,
    file,
    layers
from read_parquet(
    '${root}/.index/model=*/keys.parquet',
    hive_partitioning = true,
    hive_types = { 'model': varchar }
);
