-- The value of the row in a group that has the wanted name, null without such a row and
-- the largest of several: turns rows (metric, estimate) into columns.
create macro pick(value, name, wanted) as
max(value) filter (where name = wanted);
