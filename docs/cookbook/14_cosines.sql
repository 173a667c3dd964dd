-- How similar are the models' directions in the reference's space?
-- Cosines of 0.7 can occur with AUROCs of 0.6: no evidence of a shared concept.
select
    model,
    other_model,
    cosine::decimal(9, 2) as cosine
from v_axis_cosines
where
    study_id = latest_study()
    and kind = 'aligned' and other_kind = 'aligned' and model < other_model
order by cosine desc, model asc;
