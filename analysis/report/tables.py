"""The tables of the report: the results of a study, and the rows that they come from."""

from __future__ import annotations

from axes.analysis.report.section import Section

STUDY = Section(
    name="study",
    title="AUROC on prompts not fitted on",
    explanation="Probability that a prompt of the positive class has a higher projection than one "
    "of the negative class. `native`: the model's direction. `universal`: the shared axis, after "
    "the model's alignment. `leave_one_out`: the axis made without this model. On the set that "
    "directions were fitted on all are out of fold; intervals are 95 %. `native_null_95`: 95th "
    "percentile of `native` under shuffled labels. `best_baseline` needs no model: an axis that is "
    "not above it may see no more than the surface of the prompts. `pairs_in_order`: share of "
    "matched pairs that the universal axis ranks right. `universal_tpr_1`: share of positive "
    "prompts that it finds at 1 % false positives. `cosine_leave_one_out`: of the model's "
    "direction with the axis made of the other models.",
    sql="""
select
    model, prompt_set, layer, held.native as native,
    format('{:.3f} to {:.3f}', held.native_lower, held.native_upper) as native_95,
    held.universal as universal,
    format('{:.3f} to {:.3f}', held.universal_lower, held.universal_upper) as universal_95,
    held.leave_one_out as leave_one_out,
    format('{:.3f} to {:.3f}', held.leave_one_out_lower, held.leave_one_out_upper)
        as leave_one_out_95,
    study.best_baseline_auroc as baseline, study.best_baseline,
    study.null_cross_validated as native_null_95, study.pairs_in_order,
    study.universal_tpr_at_1_percent as universal_tpr_1,
    coalesce(
        format(
            '{:.3f} to {:.3f}',
            study.universal_tpr_at_1_percent_lower, study.universal_tpr_at_1_percent_upper
        ),
        'fewer than 100 negative prompts'
    ) as universal_tpr_1_95,
    study.cosine_leave_one_out
from v_study as study
left join v_held_out as held using (study_id, model, prompt_set)
where study_id = $study_id
order by prompt_set, model
""",
)

IN_SAMPLE = Section(
    name="in_sample",
    title="AUROC in sample",
    explanation="On the set that directions were fitted on: what the source study printed, not "
    "evidence. `null_95`: 95th percentile of `native` under shuffled labels. `universal_moves`: "
    "range of `universal` as one setting after another is changed.",
    sql="""
select
    model, prompt_set, native,
    format('{:.3f} to {:.3f}', native_lower, native_upper) as native_95,
    null_in_sample as null_95, universal,
    format('{:.3f} to {:.3f}', universal_lower, universal_upper) as universal_95, leave_one_out,
    coalesce(format('{:.3f} to {:.3f}', universal_min, universal_max), 'not measured')
        as universal_moves, moved_most_by
from v_study
where study_id = $study_id and is_in_sample
order by prompt_set, model
""",
)

BESIDE = Section(
    name="beside",
    title="Differences and nulls",
    explanation="`native_minus_universal`: difference on the same rows, out of fold where the "
    "directions were fitted on these prompts; `holm_p` is corrected over the study. "
    "`random_95`, `shuffled_alignment_95`: 95th percentile of the AUROC of random directions, and "
    "of the axis through alignments of shuffled rows. `universal_tpr_1`, `_5`: true positive rate "
    "at 1 % and 5 % false positives. `universal_ece`: calibration error of Platt probabilities "
    "fitted on other folds.",
    sql="""
select
    model, prompt_set,
    max_by(estimate, ends_with(scorer, 'validated')) filter (where is_gain)
        as native_minus_universal,
    max_by(format('{:.3f} to {:.3f}', lower, upper), ends_with(scorer, 'validated'))
        filter (where is_gain) as difference_95,
    max_by(p_value_adjusted, ends_with(scorer, 'validated')) filter (where is_gain) as holm_p,
    pick(upper, (scorer, metric), ('random_direction', 'auroc')) as random_95,
    pick(upper, (scorer, metric), ('shuffled_alignment', 'auroc')) as shuffled_alignment_95,
    pick(estimate, (scorer, metric), ('universal', 'tpr_at_fpr_0.01')) as universal_tpr_1,
    pick(estimate, (scorer, metric), ('universal', 'tpr_at_fpr_0.05')) as universal_tpr_5,
    pick(estimate, (scorer, metric), ('universal', 'expected_calibration_error')) as universal_ece
from (
    select
        *,
        metric = 'auroc_difference' and scorer like 'native_minus_universal%' as is_gain
    from evaluations
)
where
    study_id = $study_id and model is not null and judged_on is null and prompt_set is not null
group by model, prompt_set
having count(*) filter (where scorer = 'universal') > 0
order by prompt_set, model
""",
)

WARNINGS = Section(
    name="warnings",
    title="Warnings",
    explanation="Reasons not to read a metric as evidence: `metric_value` is compared with "
    "`compared_with`. Where an axis is not shown to exceed what the surface of the prompts tells "
    "without a model, it may detect no more than that, most of all where the source of a prompt "
    "determines its label. The claims that rest on a premise that fails are answered `cannot "
    "tell`.",
    sql="""
select warning, model, prompt_set, scorer, metric_value, compared_with, text
from v_study_warnings
where study_id = $study_id
order by warning, prompt_set, model, scorer
""",
    missing="No rule of `v_study_warnings` applies to the metrics of this study.",
)

DIAGNOSES = Section(
    name="diagnoses",
    title="Diagnoses",
    explanation="Why the cosine and the AUROC differ, by `axes diagnose`; empty until it is run.",
    sql="""
select model, prompt_set, cosine, auroc, native_auroc, normal_auroc, diagnosis
from v_diagnoses
where study_id = $study_id
order by model, prompt_set
""",
    missing="No diagnosis is stored: run `axes diagnose {study_id}`.",
)

SENSITIVITY = Section(
    name="sensitivity_table",
    title="Sensitivity of every metric",
    explanation="The values and the cosine at both ends of each range. A metric whose range is "
    "wider than its interval depends on the setting.",
    sql="""
select
    model, prompt_set, metric, setting, own, metric_min, metric_max, spread, value_at_min,
    value_at_max, cosine_at_min,
    format('{:.2f} to {:.2f}', cosine_min, cosine_max) as cosine
from v_sensitivity
where study_id = $study_id
order by prompt_set, metric = 'universal' desc, metric, model, spread desc
""",
    missing="The sensitivity is not measured: run `axes study sensitivity {study_id}`.",
)

ALIGNMENTS = Section(
    name="alignments",
    title="Alignment and cosines",
    explanation="`alignment_r2`: share of the reference's variance that the map predicts on "
    "held-out alignment prompts. `shuffled_r2_95`: 95th percentile of the same with shuffled "
    "pairs. `mutual_knn`: share of the nearest alignment prompts that model and reference have in "
    "common, without a map; `shuffled_mutual_knn_95`: the same with shuffled partners. "
    "Cosines stay high over many lambdas while the AUROC changes: read both.",
    sql="""
select
    model, layer,
    pick(estimate, metric, 'cosine_universal') as cosine_universal,
    pick(estimate, metric, 'cosine_reference') as cosine_reference,
    pick(estimate, metric, 'universal_weight') as universal_weight,
    pick(estimate, metric, 'r2_held_out') as alignment_r2,
    pick(upper, metric, 'r2_shuffled') as shuffled_r2_95,
    pick(estimate, metric, 'mutual_knn') as mutual_knn,
    pick(upper, metric, 'mutual_knn_shuffled') as shuffled_mutual_knn_95,
    pick(estimate, metric, 'effective_rank') as effective_rank,
    pick(estimate, metric, 'ridge_lambda') as ridge_lambda
from evaluations
where study_id = $study_id and scorer = 'aligned'
group by model, layer
order by model
""",
)

PUBLISHED = Section(
    name="published",
    title="Comparison with published values",
    explanation="Values that others report for these models, next to the study's. Empty where the "
    "study names none.",
    sql="""
select model, metric, published, ours, lower, upper, difference
from v_published
where study_id = $study_id
order by model, metric
""",
    missing="The study names no published values: add them to a study file, and run `axes study "
    "FILE`.",
)

ERASURE = Section(
    name="erasure",
    title="Erasure",
    explanation="AUROC of a linear probe on held-out prompts: on the stored activations, without "
    "the one direction, and after LEACE. `fresh`: eraser and direction were fitted on other "
    "prompts than the probe; otherwise on the same prompts, where LEACE leaves nothing by "
    "construction.",
    sql="""
select
    model,
    pick(estimate, scorer, 'probe_before') as before,
    pick(estimate, scorer, 'probe_direction_removed') as direction_removed,
    pick(estimate, scorer, 'probe_erased') as erased,
    pick(estimate, scorer, 'probe_before_fresh') as before_fresh,
    pick(estimate, scorer, 'probe_direction_removed_fresh') as direction_removed_fresh,
    pick(estimate, scorer, 'probe_erased_fresh') as erased_fresh
from evaluations
where study_id = $study_id and metric = 'auroc' and starts_with(scorer, 'probe_')
group by model
order by model
""",
)

CLAIMS = Section(
    name="claims",
    title="Claims and verdicts",
    explanation="Verdicts on the claims of the source study, by rules that were fixed before any "
    "result. The model (or pair) is the one that decides; its interval must lie beyond "
    "`null_value`. `cause` states why the numbers cannot tell, `to_decide` what would decide an "
    "undecided claim; four of five studies would show a distance of `smallest_effect` from "
    "`null_value`; `study_count` studies were run on these prompts.",
    sql="""
select text as claim, prompt_set, verdict, cause, model, estimate, lower, upper, null_value,
    smallest_effect, study_count, to_decide
from v_claims
where study_id = $study_id
order by position, prompt_set
""",
)

DEFINITION = Section(
    name="definition",
    title="Definition",
    explanation="The settings, chosen before any result; with the stored rows they determine "
    "every number.",
    sql="""
select keys.setting, defined.parameters ->> keys.setting as value
from (from evaluations select parameters where study_id = $study_id limit 1) as defined,
    unnest(json_keys(defined.parameters)) as keys (setting)
order by setting
""",
)

MODELS = Section(
    name="models",
    title="Models",
    explanation="The exact weights, tokenizers and templates: the hashes are SHA-256.",
    sql="""
select
    model, source, revision, dtype, layer_count, d_model, parameter_count, license,
    model_id, weights_hash, tokenizer_hash, template_hash
from models
where model_id in (select model_id from evaluations where study_id = $study_id)
order by model
""",
    missing="The models are not in this warehouse: run `axes ingest activations MODEL`.",
)

PROMPT_SETS = Section(
    name="prompt_sets",
    title="Prompt sets",
    explanation="The classes by the names of their labels.",
    sql="""
select
    prompt_set,
    string_agg(distinct label, ', ' order by label) filter (where is_positive) as positive_class,
    string_agg(distinct label, ', ' order by label) filter (where not is_positive)
        as negative_class,
    count(*) filter (where is_positive) as positive_count,
    count(*) filter (where not is_positive) as negative_count,
    count(*) filter (where is_positive is null) as unlabelled_count,
    string_agg(distinct source, ', ' order by source) as sources,
    string_agg(distinct license, ', ' order by license) as licenses
from v_prompts
where
    prompt_set = $align
    or prompt_set in (select prompt_set from evaluations where study_id = $study_id)
group by prompt_set
order by prompt_set
""",
    missing="The prompts are not in this warehouse: run `axes prompts import {prompts} SOURCE`.",
)

COVERAGE = Section(
    name="coverage",
    title="Coverage of activations",
    explanation="Prompts of each set whose activations are stored at the study's layer. The study "
    "uses at most `align_rows` prompts of `{align}`.",
    sql="""
with spaces as (
    select distinct evaluations.model_id, axes.layer, axes.site, axes.pooling, axes.template
    from evaluations
    inner join axes on evaluations.axis_id = axes.axis_id
    where evaluations.study_id = $study_id and evaluations.scorer = 'native'
)

select model, prompt_set, layer, site, pooling, template, prompt_count, row_count, missing_count
from v_coverage
inner join spaces using (model_id, layer, site, pooling, template)
where
    prompt_set = $align
    or prompt_set in (select prompt_set from evaluations where study_id = $study_id)
order by model, prompt_set
""",
    missing="The activations are not in this warehouse: run `axes ingest activations MODEL "
    "--prompts {prompts}`.",
)

AXES = Section(
    name="axes",
    title="Axes",
    explanation="`row_set_hash`: hash of the prompts and labels that an axis was fitted on, in "
    "order.",
    sql="""
select
    name, kind, axis_id, space_model, layer, prompt_set, positive_count, negative_count,
    row_set_hash, alignment_id, run_id
from axes
where axis_id in (select axis_id from evaluations where study_id = $study_id)
order by kind, name, axis_id
""",
)

RUNS = Section(
    name="runs",
    title="Jobs",
    explanation="The last hundred jobs on this warehouse, newest first.",
    sql="""
select
    command, model, status, device, rows, tokens, seconds, tokens_per_second, code_version,
    run_id, started_at
from v_runs
order by started_at desc, run_id
limit 100
""",
    missing="No job is recorded.",
)

LIBRARIES = Section(
    name="libraries",
    title="Versions",
    explanation="Versions of this package and of the libraries that computed the study.",
    sql="""
with written as (
    select code_version, library_versions
    from runs
    where run_id in (select run_id from evaluations where study_id = $study_id)
)

select keys.library, written.library_versions ->> keys.library as version
from written, unnest(json_keys(written.library_versions)) as keys (library)
union all
select 'safety-axes', code_version
from written
order by library
""",
    missing="The job of the study is not recorded.",
)

# One scorer for all, out of fold where there is one: what explains one axis explains the others.
WARNINGS_IN_SHORT = """
select text
from v_study_warnings
where
    study_id = $study_id
    and if(
        warning = 'surface',
        starts_with(scorer, 'universal'),
        scorer is null or scorer = 'universal' or warning in ('no_signal', 'shuffled_labels')
    )
group by warning, prompt_set, text
order by warning, prompt_set, min(model)
"""
