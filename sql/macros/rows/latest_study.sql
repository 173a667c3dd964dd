-- The id of the last study: `where study_id = latest_study()` keeps a query on one
-- study when another is run. Null without a study.
create macro latest_study() as
(
    select arg_max(study_id, started_at order by study_id) from v_studies
);
