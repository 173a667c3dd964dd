-- One row per scoring, model and what is calibrated.
create view stg_answer_calibrations as
select
    scoring_id,
    model,
    model_id,
    axis_id,
    source,
    method,
    parameters,
    threshold,
    labeler,
    is_negated,
    statistic,
    positive_count,
    negative_count,
    run_id
from read_parquet(
    '${root}/answer_calibrations/*.parquet',
    hive_partitioning = false
);
