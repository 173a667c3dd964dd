-- Does the projection depend on the length of the prompt?
-- Spearman of the projection on the universal axis with the number of prompt tokens.
select
    wide.model,
    spearman(wide.universal, activations.token_count)::decimal(9, 2) as with_length,
    auroc(activations.token_count, wide.is_positive)::decimal(9, 2) as length_auroc
from v_projections_wide as wide
inner join activations
    on
        wide.model_id = activations.model_id
        and wide.prompt_id = activations.prompt_id
        and wide.layer = activations.layer
where wide.study_id = latest_study() and wide.prompt_set = 'demo_safety'
group by wide.model
order by wide.model;
