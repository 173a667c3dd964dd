-- The vector scaled to length one, in double precision: v / |v|.
-- Null for the zero vector.
create macro unit(v) as
case
    when list_inner_product(v::double[], v::double[]) > 0
        then list_transform(
            v::double[],
            lambda x: x / sqrt(list_inner_product(v::double[], v::double[]))
        )
end;
