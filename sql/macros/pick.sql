-- The value in the row of a group whose name is the wanted one, null without such a row:
-- turns rows (metric, estimate) into columns. The greatest where several have the name.
create macro pick(value, name, wanted) as
max(value) filter (where name = wanted);
