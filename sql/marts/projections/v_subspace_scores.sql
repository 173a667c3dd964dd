-- One row per subspace, model and prompt in a prompt set whose coordinates are stored.
-- A coordinate is the projection on a basis vector less that of the mean of the
-- negative prompts that the subspace was fitted on (docs/methods.md, Subspace).
--
-- subspace_id: what the axes of its basis share (axes.parameters)
-- subspace_name: the name of these axes without its last part
-- rank: number of basis vectors
-- prompt_set: the set of the prompt
-- coordinates: in the order of the basis, in the units of the activations
-- norm: length of the coordinates
-- combination: logistic regression on the coordinates and their squares; 0 is halfway
--   between the means of the classes that it was fitted on
-- is_in_sample: the subspace was fitted on this prompt
create view v_subspace_scores as
with
described as (
    select
        axis_id,
        try_cast(parameters as json) as parameters
    from stg_axes
    where kind = 'subspace'
),

basis as (
    select
        axis_id,
        parameters ->> '$.subspace_id' as subspace_id,
        parameters ->> '$.subspace' as subspace_name,
        (parameters ->> '$.rank')::integer as rank,
        (parameters ->> '$.component')::integer as component,
        (parameters ->> '$.offset')::double as zero,
        (parameters -> '$.weights')::double[] as weights,
        (parameters ->> '$.intercept')::double as intercept
    from described
),

collected as (
    select
        basis.subspace_id,
        basis.subspace_name,
        basis.rank,
        basis.weights,
        basis.intercept,
        projections.model,
        projections.model_id,
        projections.layer,
        projections.prompt_set,
        projections.prompt_id,
        projections.is_positive,
        projections.is_in_sample,
        list(
            projections.projection - basis.zero order by basis.component
        ) as coordinates
    from v_projections as projections
    inner join basis using (axis_id)
    group by all
    having count(*) = basis.rank
)

select
    * exclude (weights, intercept),
    sqrt(list_inner_product(coordinates, coordinates)) as norm,
    list_inner_product(
        weights, coordinates || list_transform(coordinates, lambda each: each ** 2)
    )
    + intercept as combination
from collected;
