-- The jobs behind this page: how often each ran and how long all of them took.
select
    command,
    count(*) as jobs,
    round(sum(epoch(finished_at - started_at))) as seconds,
    sum(tokens) as tokens
from runs
where status = 'finished'
group by command
order by command;
