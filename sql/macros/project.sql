-- Projection of a vector on a registered axis, project(vector, axis_id): vector . axis,
-- as in `projections`. The vector must lie in the space of the axis (axes.space_model,
-- layer and site): a universal axis lies in that of its reference model.
-- Null where there is no such axis.
create macro project(v, id) as
list_inner_product(
    v::double[],
    (
        select axes.vector::double[]
        from axes
        where axes.axis_id = id -- noqa: RF03
    )
);
