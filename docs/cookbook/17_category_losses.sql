-- In which categories does the universal axis score lower than native?
-- Means over the models, 25 + 25 prompts per category: differences of 0.1 are noise.
with
by_kind as (
    select
        v_category_auroc.category,
        avg(v_category_auroc.auroc) filter (
            where v_category_auroc.kind = 'native'
        ) as native,
        avg(v_category_auroc.auroc) filter (
            where v_category_auroc.kind = 'universal'
        ) as universal
    from v_category_auroc
    where
        v_category_auroc.study_id = latest_study()
        and v_category_auroc.prompt_set = 'demo_safety'
    group by v_category_auroc.category
)

select
    category,
    native::decimal(9, 2) as native,
    universal::decimal(9, 2) as universal,
    (native - universal)::decimal(9, 2) as loss
from by_kind
order by loss desc, category asc;
