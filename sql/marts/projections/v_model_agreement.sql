-- One row per universal axis, kind of projection, prompt set and ordered pair of
-- models: rank correlation of their projections, over the prompts that both have.
--
-- kind: which projection is compared: universal, native or leave_one_out
-- other_model: the model compared with
-- other_model_id: its models.model_id
-- prompt_count: prompts projected for both
-- spearman: Spearman's rank correlation of the two projections
-- spearman_positive: the same within the positive class
-- spearman_negative: the same within the negative class
create view v_model_agreement as
with
projections as (
    unpivot v_projections_wide
    on universal, native, leave_one_out
    into name kind value projection
)

select
    projections.universal_axis_id,
    projections.study_id,
    projections.axis_name,
    projections.kind,
    projections.prompt_set,
    projections.model,
    projections.model_id,
    other.model as other_model,
    other.model_id as other_model_id,
    count(*) as prompt_count,
    spearman(projections.projection, other.projection) as spearman,
    spearman(
        case when projections.is_positive then projections.projection end,
        other.projection
    ) as spearman_positive,
    spearman(
        case when not projections.is_positive then projections.projection end,
        other.projection
    ) as spearman_negative
from projections
inner join projections as other
    on
        projections.universal_axis_id = other.universal_axis_id
        and projections.kind = other.kind
        and projections.prompt_set = other.prompt_set
        and projections.prompt_id = other.prompt_id
        and projections.model_id != other.model_id
group by all;
