-- The two-sided 95 % normal quantile for one of so many comparisons, by Bonferroni:
-- the quantile of 1 - 0.025 / comparison_count, up to 20 of them.
create macro simultaneous_z(comparison_count) as (
    [
        1.959964, 2.241403, 2.393980, 2.497705, 2.575829,
        2.638257, 2.690110, 2.734369, 2.772921, 2.807034,
        2.837597, 2.865260, 2.890512, 2.913726, 2.935199,
        2.955167, 2.973820, 2.991316, 3.007787, 3.023341
    ][comparison_count]
);
