-- Aggregate: the largest true-positive rate at a false-positive rate of at most `fpr`,
-- over thresholds between distinct scores, without interpolation (scikit-learn's
-- roc_curve: max(tpr[fpr <= limit])).
-- With k = floor(fpr * n_neg) it is the share of positives above the (k + 1)-th highest
-- negative; k is corrected where fpr * n_neg was rounded across a whole number.
-- Null where a class is missing. Rows with a null score are left out; a null
-- label is an error.
create macro tpr_at_fpr(score, is_positive, fpr) as
list_transform(
    [
        {
            'above': list(score::double order by score::double desc) filter (
                where labelled(score, is_positive) and score is not null
            ),
            'below': list(score::double order by score::double desc) filter (
                where not is_positive and score is not null
            ),
            'limit': fpr::double
        }
    ],
    lambda s: case
        when s.above is null or s.below is null then null
        when s.limit >= 1 then 1.0
        else
            len(
                list_filter(
                    s.above,
                    lambda x: x > s.below[
                        1
                        + round(s.limit * len(s.below))::bigint
                        - (
                            round(s.limit * len(s.below)) / len(s.below) > s.limit
                        )::bigint
                    ]
                )
            )
            / len(s.above)
    end
)[1];
