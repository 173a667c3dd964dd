-- Places from 1 of the values of a sorted list, tied values sharing the mean of theirs.
-- `ends`: the last place of each run of equal values.
create macro midranks(sorted) as
list_transform(
    [sorted],
    lambda bound: list_transform(
        [
            list_filter(
                range(1, len(bound) + 1),
                lambda place: bound[place + 1] is distinct from bound[place]
            )
        ],
        lambda ends: flatten(
            list_transform(
                list_zip(ends, list_prepend(0, ends)[:-2]),
                lambda run: repeat([(run[1] + run[2] + 1) / 2], run[1] - run[2])
            )
        )
    )[1]
)[1];
