-- The label of a row with a score. Raises an error where it is null: an aggregate that
-- left such rows out would be about fewer rows than `count(*)` next to it says.
create macro labelled(score, is_positive) as
case
    when score is not null and is_positive is null
        then error(
            'a row with a score has no label: add `where is_positive is not null`'
        )::boolean
    else is_positive
end;
