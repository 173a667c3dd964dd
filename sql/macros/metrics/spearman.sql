-- Aggregate: Spearman's rank correlation, Pearson's correlation of midranks (Spearman
-- 1904), so ties count as scipy.stats.spearmanr counts them.
-- Null where either side does not vary. Rows with a null on either side are left out.
-- The rows are sorted by x, given their midranks, sorted by y and given those too; the
-- correlation is the cosine of the two lists of midranks less their mean.
create macro spearman(x, y) as
list_transform(
    [
        list({ 'x': x::double, 'y': y::double } order by x::double) filter (
            where x is not null and y is not null
        )
    ],
    lambda pairs: list_transform(
        [
            list_sort(
                list_zip(
                    list_transform(pairs, lambda pair: pair.y),
                    midranks(list_transform(pairs, lambda pair: pair.x))
                )
            )
        ],
        lambda ranked: list_transform(
            [
                [
                    list_transform(ranked, lambda pair: pair[2]),
                    midranks(list_transform(ranked, lambda pair: pair[1]))
                ]
            ],
            lambda ranks: cosine(
                list_transform(ranks[1], lambda rank: rank - (len(ranks[1]) + 1) / 2),
                list_transform(ranks[2], lambda rank: rank - (len(ranks[2]) + 1) / 2)
            )
        )[1]
    )[1]
)[1];
