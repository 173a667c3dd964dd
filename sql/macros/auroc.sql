-- Aggregate: probability that a positive row scores above a negative one, ties half.
-- Mann-Whitney U over n_pos * n_neg with midranks (Hanley and McNeil 1982).
-- Null where a class is missing. Rows with a null score or label are left out.
-- For groups of more than about 100,000 rows read v_auroc, which ranks by window.
create macro auroc(score, is_positive) as (
    select
        (
            sum(midrank) filter (where positive)
            - count(*) filter (where positive)
            * (count(*) filter (where positive) + 1) / 2
        )
        / nullif(
            count(*) filter (where positive) * count(*) filter (where not positive),
            0
        )
    from (
        select
            positive,
            avg(place) over (partition by value) as midrank
        from (
            select
                item.value,
                item.positive,
                row_number() over (order by item.value) as place
            from (
                select unnest(
                    list({ 'value': score::double, 'positive': is_positive })
                ) as item
            ) as items
            where item.value is not null and item.positive is not null
        ) as places
    ) as ranks
);
