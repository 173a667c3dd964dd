-- In how many layers does the same dimension stand out?
select
    dimension,
    count(*) as layers,
    min(layer) as first_layer,
    max(layer) as last_layer,
    max(share)::decimal(9, 2) as largest_share
from v_outlier_dimensions
where model = 'smollm2-135m'
group by dimension
having max(share) > 0.1
order by layers desc, dimension asc;
