-- Projection of a vector on a registered axis, project(vector, axis_id): vector . axis,
-- as in `projections`. The vector must lie in the space of the axis (axes.space_model,
-- layer and site): a universal axis lies in that of its reference model. Null if the
-- axis is not stored. The renaming lets a column of the caller that is called axis_id
-- be passed.
create macro project(v, id) as
list_inner_product(
    v::double[],
    (
        select registered.registered_vector::double[]
        from (
            select
                axes.axis_id as registered_id,
                axes.vector as registered_vector
            from axes
        ) as registered
        where registered.registered_id = id -- noqa: RF03
    )
);
