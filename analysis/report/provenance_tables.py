"""Where a study's numbers come from: its definition, models, prompts, axes, jobs and libraries."""

from __future__ import annotations

from axes.analysis.report.section import Section

_DEFINITION = """
with defined as (
    select any_value(parameters) as parameters
    from evaluations
    where study_id = '{study_id}'
),

settings as (
    select parameters, unnest(json_keys(parameters)) as setting
    from defined
)

select setting, parameters ->> setting as value
from settings
order by setting
"""

_MODELS = """
select
    model, source, revision, dtype, layer_count, d_model, parameter_count, license,
    model_id, weights_hash, tokenizer_hash, template_hash
from models
where model_id in (select model_id from evaluations where study_id = '{study_id}')
order by model
"""

_PROMPT_SETS = """
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
    prompt_set = '{align}'
    or prompt_set in (select prompt_set from evaluations where study_id = '{study_id}')
group by prompt_set
order by prompt_set
"""

_COVERAGE = """
with spaces as (
    select distinct evaluations.model_id, axes.layer, axes.site, axes.pooling, axes.template
    from evaluations
    inner join axes on evaluations.axis_id = axes.axis_id
    where evaluations.study_id = '{study_id}' and evaluations.scorer = 'native'
)

select model, prompt_set, layer, site, pooling, template, prompt_count, row_count, missing_count
from v_coverage
inner join spaces using (model_id, layer, site, pooling, template)
where
    prompt_set = '{align}'
    or prompt_set in (select prompt_set from evaluations where study_id = '{study_id}')
order by model, prompt_set
"""

_AXES = """
select
    name, kind, axis_id, space_model, layer, prompt_set, positive_count, negative_count,
    row_set_hash, alignment_id, run_id
from axes
where axis_id in (select axis_id from evaluations where study_id = '{study_id}')
order by kind, name, axis_id
"""

_RUNS = """
select
    command, model, status, device, rows, tokens, seconds, tokens_per_second, code_version,
    run_id, started_at
from v_runs
order by started_at desc, run_id
limit 100
"""

_LIBRARIES = """
with written as (
    select code_version, library_versions
    from runs
    where run_id in (select run_id from evaluations where study_id = '{study_id}')
),

libraries as (
    select library_versions, unnest(json_keys(library_versions)) as library
    from written
)

select library, library_versions ->> library as version
from libraries
union all
select 'safety-axes', code_version
from written
order by library
"""

_NOTHING = "Nothing is stored of this study: run its `axes study` again."

DEFINITION = Section(
    name="definition",
    title="Definition",
    reading="What was chosen before any result; with the rows, it determines every number.",
    statement=_DEFINITION,
    missing=_NOTHING,
)

MODELS = Section(
    name="models",
    title="Models",
    reading="Which weights, tokenizer and template, exactly: the hashes are SHA-256.",
    statement=_MODELS,
    missing="The models are not in this warehouse: run `axes ingest activations MODEL`.",
)

PROMPT_SETS = Section(
    name="prompt_sets",
    title="Prompt sets",
    reading="The classes as their labels name them.",
    statement=_PROMPT_SETS,
    missing="The prompts are not in this warehouse: run `axes prompts import {prompts} SOURCE`.",
)

COVERAGE = Section(
    name="coverage",
    title="Activations behind the figures",
    reading="Of how many prompts of each set the activations are stored, at the study's layer. Of "
    "`{align}` no more than `align_rows` are asked for.",
    statement=_COVERAGE,
    missing="The activations are not in this warehouse: run `axes ingest activations MODEL "
    "--prompts {prompts}`.",
)

AXES = Section(
    name="axes",
    title="Axes",
    reading="`row_set_hash`: of the prompts and labels that an axis was fitted on, in order.",
    statement=_AXES,
    missing=_NOTHING,
)

RUNS = Section(
    name="runs",
    title="Jobs",
    reading="What was run on this warehouse, the last hundred jobs, newest first.",
    statement=_RUNS,
    missing="No job is recorded.",
)

LIBRARIES = Section(
    name="libraries",
    title="Versions",
    reading="Of this package and of the libraries that computed the study.",
    statement=_LIBRARIES,
    missing="The study's job is not recorded.",
)
