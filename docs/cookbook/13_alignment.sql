-- How well does each model map to the reference?
select
    model,
    method,
    lambda_policy,
    log10(ridge_lambda)::decimal(9, 1) as log10_lambda,
    row_count,
    r2_held_out::decimal(9, 2) as r2_held_out,
    r2_uniform::decimal(9, 2) as r2_uniform
from alignments
order by model;
