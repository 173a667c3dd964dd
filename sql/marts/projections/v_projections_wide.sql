-- One row per universal axis, model and prompt in a prompt set: the projections of one
-- study side by side, each null where it was not made.
--
-- universal_axis_id: the universal axis (axes.axis_id)
-- native_axis_id: the model's direction that it was made from
-- leave_one_out_axis_id: the axis made of the same directions without this model's
-- universal: projection on the universal axis, after the model's alignment
-- native: projection on the native axis
-- leave_one_out: projection on the leave-one-out axis, after the model's alignment
-- prompt_set: the set of the prompt
create view v_projections_wide as
with
members as (
    select
        universal.axis_id as universal_axis_id,
        aligned.fitted_model as model,
        aligned.source_axis_ids[1] as native_axis_id,
        list_sort(
            list_filter(
                universal.source_axis_ids,
                lambda axis_id: axis_id != aligned.axis_id -- noqa: RF02
            )
        ) as others
    from stg_axes as universal
    inner join stg_axes as aligned
        on list_contains(universal.source_axis_ids, aligned.axis_id)
    where universal.kind = 'universal'
),

studies as (
    select
        members.universal_axis_id,
        members.model,
        members.native_axis_id,
        leave_one_out.axis_id as leave_one_out_axis_id
    from members
    left join stg_axes as leave_one_out
        on
            leave_one_out.kind = 'leave_one_out'
            and members.model = leave_one_out.held_out_model
            and members.others = list_sort(leave_one_out.source_axis_ids)
)

select
    scored.axis_id as universal_axis_id,
    scored.study_id,
    studies.native_axis_id,
    studies.leave_one_out_axis_id,
    scored.axis_name,
    scored.model,
    scored.model_id,
    scored.prompt_set,
    scored.prompt_id,
    scored.pair_id,
    scored.layer,
    scored.text,
    scored.category,
    scored.label,
    scored.projection as universal,
    native.projection as native,
    leave_one_out.projection as leave_one_out,
    scored.is_positive,
    scored.is_in_sample
from v_projections as scored
inner join studies
    on
        scored.axis_id = studies.universal_axis_id
        and scored.model = studies.model
left join stg_projections as native
    on
        studies.native_axis_id = native.axis_id
        and scored.model_id = native.model_id
        and scored.prompt_id = native.prompt_id
left join stg_projections as leave_one_out
    on
        studies.leave_one_out_axis_id = leave_one_out.axis_id
        and scored.model_id = leave_one_out.model_id
        and scored.prompt_id = leave_one_out.prompt_id;
