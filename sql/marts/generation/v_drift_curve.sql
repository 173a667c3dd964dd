-- One row per drift analysis, curve and step: how the classes separate while the model
-- generates, and from which step the running projection separates them. A step of
-- mean_difference rests on the completions that reach it (see the counts); under the
-- control lasting, on the same completions at every step. running_auroc is of all
-- completions at every step: one that has ended keeps its last running mean. The
-- band is simultaneous, at 95 %.
--
-- axis_name: its name (axes.name)
-- curve: mean_difference (positive less negative class) or running_auroc
create view v_drift_curve as
select
    figures.drift_id,
    figures.model,
    figures.model_id,
    figures.axis_id,
    axes.name as axis_name,
    axes.kind,
    figures.prompt_set,
    figures.labeler,
    figures.layer,
    figures.metric as curve,
    figures.control,
    figures.step,
    figures.estimate,
    figures.lower,
    figures.upper,
    figures.band_lower,
    figures.band_upper,
    figures.positive_count,
    figures.negative_count
from stg_drift_figures as figures
left join stg_axes as axes using (axis_id)
where figures.step is not null;
