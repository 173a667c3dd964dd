-- Aggregate: agreement of two labelers beyond chance, 1 at best, 0 as by chance
-- (Cohen 1960): (p_o - p_e) / (1 - p_e), where p_o is how often both say the same and
-- p_e how often they would if each kept its own frequencies. Labels of any one type.
-- Null without rows, and where both say one and the same of every row. Rows with a null
-- on either side are left out.
create macro cohen_kappa(first_label, other_label) as
list_transform(
    list_transform(
        [
            list({ 'first': first_label, 'other': other_label }) filter (
                where first_label is not null and other_label is not null
            )
        ],
        lambda said: {
            'count': len(said)::double,
            'same': len(list_filter(said, lambda pair: pair.first = pair.other)),
            'by_chance': list_sum(
                list_transform(
                    list_distinct(list_transform(said, lambda pair: pair.first)),
                    lambda value: (
                        len(list_filter(said, lambda pair: pair.first = value))::double
                        * len(list_filter(said, lambda pair: pair.other = value))
                    )
                )
            )
        }
    ),
    lambda counted: (
        (counted.same * counted.count - counted.by_chance)
        / nullif(counted.count * counted.count - counted.by_chance, 0)
    )
)[1];
