-- Aggregate: probability that a positive row scores above a negative one, ties half.
-- Mann-Whitney U over n_pos * n_neg with midranks (Hanley and McNeil 1982).
-- Null where a class is missing. Rows with a null score are left out; a null label is
-- an error.
-- Both lists are in the order of the scores: labels, and the midranks of the scores.
create macro auroc(score, is_positive) as
(
    list_inner_product(
        list(labelled(score, is_positive)::int::double order by score::double) filter (
            where score is not null
        ),
        midranks(
            list(score::double order by score::double) filter (where score is not null)
        )
    )
    - count(score) filter (where is_positive)
    * (count(score) filter (where is_positive) + 1) / 2
)
/ nullif(
    count(score) filter (where is_positive)
    * count(score) filter (where not is_positive),
    0
);
