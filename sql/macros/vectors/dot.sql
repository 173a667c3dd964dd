-- Inner product of two vectors of one length: sum of a[i] * b[i], in double precision.
create macro dot(a, b) as list_inner_product(a::double[], b::double[]);
