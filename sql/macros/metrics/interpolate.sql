-- The straight line between knots at x, interpolate(x, xs, ys): `xs` strictly
-- increasing, `ys` as long; constant beyond the first and the last (numpy.interp).
create macro interpolate(x, xs, ys) as
list_transform(
    [{ 'at': x::double, 'place': len(list_filter(xs, lambda k: k <= x)) }],
    lambda s: case
        when s.at is null then null
        when s.place = 0 then ys[1]
        when s.place = len(xs) then ys[s.place]
        else
            ys[s.place]
            + (ys[s.place + 1] - ys[s.place])
            * (s.at - xs[s.place]) / (xs[s.place + 1] - xs[s.place])
    end
)[1];
