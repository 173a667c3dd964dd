-- The id of the last study: `where study_id = latest_study()` keeps a query on one
-- study when another is run. Null without a study.
create macro latest_study() as
(
    select study_id
    from v_studies
    order by started_at desc, study_id asc
    limit 1
);
