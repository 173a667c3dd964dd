-- One row per drift analysis, curve and step: how the classes separate while the model
-- generates, and from which step the running projection separates them. A step of
-- mean_difference rests on the completions that reach it (see the counts); under the
-- control lasting, on the same completions at every step. running_auroc is of all
-- completions at every step: one that has ended keeps its last running mean.
--
-- axis_id: the axis (axes.axis_id)
-- axis_name: its name (axes.name)
-- prompt_set: the set of the prompts
-- positive_count: completions of the positive class
-- negative_count: completions of the negative class
-- curve: mean_difference (positive less negative class) or running_auroc
-- band_lower: lower end of the simultaneous 95 % band, which covers the complete curve
-- band_upper: upper end of the simultaneous 95 % band
create view v_drift_curve as
with
figures as (
    select * from stg_drift_figures
    where step is not null
),

axes as (select * from stg_axes),

final as (
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
    from figures
    left join axes using (axis_id)
)

select * from final;
