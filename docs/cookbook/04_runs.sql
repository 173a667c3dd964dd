-- Which jobs ran, and how did they end?
-- v_runs also has the seconds of each job, which differ between machines.
select
    command,
    model,
    sum(rows)::bigint as row_count,
    sum(tokens)::bigint as tokens,
    count(*) filter (where status != 'finished') as unfinished
from v_runs
group by command, model
having sum(rows) > 0
order by command, model;
