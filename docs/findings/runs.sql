-- The jobs behind this page: how often each ran and their total time.
select
    command,
    count(*) as jobs,
    round(sum(epoch(finished_at - started_at))) as seconds,
    sum(tokens) as tokens
from runs
where status = 'finished'
group by command
order by command;
