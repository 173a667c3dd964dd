-- What did the jobs do?
-- v_runs has the seconds of each as well, which differ from machine to machine.
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
