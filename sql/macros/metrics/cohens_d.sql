-- Aggregate: difference of the class means in pooled standard deviations (Cohen 1988):
-- (mean+ - mean-) / sqrt(((n+ - 1) var+ + (n- - 1) var-) / (n+ + n- - 2)).
-- Null where a class is missing or nothing varies. Rows with a null score are left
-- out; a null label is an error.
create macro cohens_d(score, is_positive) as
(
    avg(score::double) filter (where labelled(score, is_positive))
    - avg(score::double) filter (where not is_positive)
)
/ nullif(
    sqrt(
        (
            var_pop(score::double) filter (where is_positive)
            * count(score) filter (where is_positive)
            + var_pop(score::double) filter (where not is_positive)
            * count(score) filter (where not is_positive)
        )
        / nullif(count(score) filter (where is_positive is not null) - 2, 0)
    ),
    0
);
