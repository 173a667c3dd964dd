-- Aggregate: the mean with a percentile bootstrap interval (Efron 1979), as a struct of
-- estimate, lower and upper. Draw d of replicate r takes the value at place hash(seed,
-- r, d) % n of the values in order, so one seed gives one interval, whatever the order
-- of the rows. `level` is the coverage, 0.95 by default. Take the mean of
-- is_correct::int for an accuracy, of a - b for a paired difference. Null without rows.
-- Rows with a null value are left out.
create macro bootstrap_ci(value, seed, replicates := 1000, level := 0.95) as
list_transform(
    [list(value::double order by value::double) filter (where value is not null)],
    lambda drawn_from: list_transform(
        [
            list_transform(
                range(replicates),
                lambda r: list_avg(
                    list_transform(
                        range(len(drawn_from)),
                        lambda d: drawn_from[
                            1 + (hash(seed, r, d) % len(drawn_from))::bigint
                        ]
                    )
                )
            )
        ],
        lambda means: case
            when drawn_from is not null
                then {
                    'estimate': list_avg(drawn_from),
                    'lower': list_aggregate(means, 'quantile_cont', (1 - level) / 2),
                    'upper': list_aggregate(means, 'quantile_cont', (1 + level) / 2)
                }
        end
    )[1]
)[1];
