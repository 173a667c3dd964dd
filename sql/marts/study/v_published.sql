-- One row per study, model and published metric: the published value next to that of
-- this study.
--
-- metric: native, universal or leave_one_out (AUROC), or cosine_universal
-- published: the published value
-- ours: the same metric in this study, with the interval
-- difference: ours minus published
create view v_published as
select
    published.study_id,
    published.model,
    published.prompt_set,
    published.scorer as metric,
    published.estimate as published,
    ours.estimate as ours,
    ours.lower,
    ours.upper,
    ours.estimate - published.estimate as difference
from stg_evaluations as published
left join stg_evaluations as ours
    on
        published.study_id = ours.study_id
        and published.model = ours.model
        and case published.metric
            when 'cosine_published' then published.scorer = ours.metric
            else
                ours.metric = 'auroc'
                and published.scorer = ours.scorer
                and published.prompt_set = ours.prompt_set
        end
where published.metric in ('auroc_published', 'cosine_published');
