-- Euclidean distance of two vectors of one length: |a - b|, in double precision.
create macro euclidean(a, b) as list_distance(a::double[], b::double[]);
