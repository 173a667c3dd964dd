-- Aggregate: area under the precision-recall curve as average precision, the sum over
-- thresholds of (recall - recall before) * precision, one threshold per distinct score
-- (scikit-learn's average_precision_score). The base rate is what chance gives. Null
-- without a positive row. Rows with a null score are left out; a null label
-- is an error. `places`: of
-- each positive by falling score, how many rows are at or above it; negatives go first
-- among ties, so the last positive of a tie counts all negatives tied with it.
create macro auprc(score, is_positive) as
list_transform(
    [
        list(
            { 'score': score::double, 'is_hit': labelled(score, is_positive) }
            order by score::double desc, is_positive::int
        ) filter (where score is not null)
    ],
    lambda ranked: list_transform(
        [
            list_transform(
                list_filter(
                    list_zip(ranked, range(1, len(ranked) + 1)),
                    lambda placed: placed[1].is_hit
                ),
                lambda placed: { 'score': placed[1].score, 'place': placed[2] }
            )
        ],
        lambda hits: list_transform(
            [
                list_filter(
                    list_zip(hits, range(1, len(hits) + 1)),
                    lambda hit: hits[hit[2] + 1].score is distinct from hit[1].score
                )
            ],
            lambda steps: list_sum(
                list_transform(
                    list_zip(steps, list_prepend(null, steps)[:-2]),
                    lambda step: (step[1][2] - coalesce(step[2][2], 0))
                    * step[1][2] / step[1][1].place
                )
            ) / nullif(len(hits), 0)
        )[1]
    )[1]
)[1];
