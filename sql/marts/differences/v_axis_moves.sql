-- One row per comparison of two model versions and axis: how far the prompts moved
-- along the axis, from the first version to the second (`axes diff`).
--
-- first: the model version subtracted, with its template unless raw
-- second: the model version that it is subtracted from
-- axis_name: name of the axis (axes.name)
-- moved: mean difference of projections, in standard deviations of the first's
-- cosine: of the axis with the mean difference
-- p_value: two-sided, of that cosine for a random direction
-- axis_share: share of the squared differences along an axis of the comparison itself
create view v_axis_moves as
select
    moves.study_id,
    moves.fitted_on as first,
    moves.judged_on as second,
    moves.prompt_set,
    moves.layer,
    moves.axis_id,
    axes.name as axis_name,
    axes.kind,
    pick(moves.estimate, moves.metric, 'moved') as moved,
    pick(moves.lower, moves.metric, 'moved') as moved_lower,
    pick(moves.upper, moves.metric, 'moved') as moved_upper,
    pick(moves.estimate, moves.metric, 'moved_cosine') as cosine,
    pick(moves.p_value, moves.metric, 'moved_cosine') as p_value,
    pick(moves.estimate, moves.metric, 'difference_axis_share') as axis_share
from stg_evaluations as moves
inner join stg_axes as axes on moves.axis_id = axes.axis_id
where moves.metric in ('moved', 'moved_cosine', 'difference_axis_share')
group by
    moves.study_id,
    moves.fitted_on,
    moves.judged_on,
    moves.prompt_set,
    moves.layer,
    moves.axis_id,
    axes.name,
    axes.kind;
