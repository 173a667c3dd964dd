-- Aggregate: mean squared difference of a probability of the positive class and the
-- outcome, 0 at best (Brier 1950).
-- Null without rows. Rows with a null probability are left out; a null label is an
-- error.
create macro brier(probability, is_positive) as
avg(
    (probability::double - labelled(probability, is_positive)::int::double)
    * (probability::double - is_positive::int::double)
);
