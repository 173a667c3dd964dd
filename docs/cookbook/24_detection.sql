-- What would a detector on the universal axis detect?
select
    model,
    auroc(universal, is_positive)::decimal(9, 2) as auroc,
    auprc(universal, is_positive)::decimal(9, 2) as auprc,
    tpr_at_fpr(universal, is_positive, 0.05)::decimal(9, 2) as caught_at_5_percent,
    tpr_at_fpr(universal, is_positive, 0.2)::decimal(9, 2) as caught_at_20_percent,
    cohens_d(universal, is_positive)::decimal(9, 2) as cohens_d
from v_projections_wide
where study_id = latest_study() and prompt_set = 'demo_safety'
group by model
order by model;
