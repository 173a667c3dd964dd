-- Cosine similarity of two vectors: dot(a, b) / (|a| |b|), in double precision.
-- Null where either is the zero vector.
create macro cosine(a, b) as
list_inner_product(a::double[], b::double[])
/ nullif(
    sqrt(list_inner_product(a::double[], a::double[]))
    * sqrt(list_inner_product(b::double[], b::double[])),
    0
);
