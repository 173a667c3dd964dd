"""A study as one Markdown file: its tables, how to read them, and the SQL behind each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import pyarrow as pa

from analysis.claims import claim_tables, verdicts
from warehouse.connection import Connection, connect, query, rows
from warehouse.errors import AxesError
from warehouse.render import render, show

STUDY_TABLE = """
select
    model, prompt_set, is_in_sample as in_sample, layer, native,
    format('{:.3f} to {:.3f}', native_lower, native_upper) as native_95,
    universal,
    format('{:.3f} to {:.3f}', universal_lower, universal_upper) as universal_95,
    coalesce(format('{:.3f} to {:.3f}', universal_least, universal_greatest), 'not measured')
        as universal_moves, moved_most_by,
    leave_one_out, native_cross_validated as native_cv, null_cross_validated as cv_null_95,
    bag_of_words
from v_study
where study_id = '{study_id}'
order by prompt_set, model
"""

_SENSITIVITY_TABLE = """
select
    model, prompt_set, figure, setting, own, least, greatest, spread, value_at_least,
    value_at_greatest, cosine_at_least,
    format('{:.2f} to {:.2f}', cosine_least, cosine_greatest) as cosine
from v_sensitivity
where study_id = '{study_id}'
order by prompt_set, figure = 'universal' desc, figure, model, spread desc
"""

_PUBLISHED_TABLE = """
select model, figure, published, ours, lower, upper, difference
from v_published
where study_id = '{study_id}'
order by model, figure
"""

_WARNINGS = """
select warning, model, prompt_set, scorer, figure, beside, text
from v_study_warnings
where study_id = '{study_id}'
order by warning, prompt_set, model, scorer
"""

# One scorer for all: where words explain one axis they explain the others, and the report says so.
_WARNINGS_IN_SHORT = """
select text
from v_study_warnings
where
    study_id = '{study_id}'
    and (scorer = 'universal' or scorer is null or warning = 'shuffled_labels')
order by warning, prompt_set, model
"""

_DIAGNOSES = """
select model, prompt_set, cosine, auroc, native_auroc, normal_auroc, diagnosis
from v_diagnoses
where study_id = '{study_id}'
order by model, prompt_set
"""

_ALIGNMENT_TABLE = """
select
    model, layer,
    max(estimate) filter (where metric = 'cosine_universal') as cosine_universal,
    max(estimate) filter (where metric = 'cosine_reference') as cosine_reference,
    max(estimate) filter (where metric = 'universal_weight') as universal_weight,
    max(estimate) filter (where metric = 'r2_held_out') as alignment_r2,
    max(upper) filter (where metric = 'r2_shuffled') as shuffled_r2_95,
    max(estimate) filter (where metric = 'effective_rank') as effective_rank,
    max(estimate) filter (where metric = 'ridge_lambda') as ridge_lambda
from evaluations
where study_id = '{study_id}' and scorer = 'aligned'
group by model, layer
order by model
"""

# Held out where there is such a figure: in sample it is on the prompts fitted on.
_BESIDE = """
with figures as (
    from evaluations
    where study_id = '{study_id}' and model is not null and judged_on is null
)

select
    model, prompt_set,
    max(estimate) filter (where scorer = 'universal_cross_validated' and metric = 'auroc')
        as universal_cv,
    max(estimate) filter (where scorer = 'leave_one_out_cross_validated' and metric = 'auroc')
        as leave_one_out_cv,
    max_by(estimate, ends_with(scorer, 'validated')) filter (where metric = 'auroc_difference')
        as native_minus_universal,
    max_by(format('{:.3f} to {:.3f}', lower, upper), ends_with(scorer, 'validated'))
        filter (where metric = 'auroc_difference') as difference_95,
    max_by(p_value_adjusted, ends_with(scorer, 'validated'))
        filter (where metric = 'auroc_difference') as holm_p,
    max(upper) filter (where scorer = 'random_direction' and metric = 'auroc') as random_95,
    max(upper) filter (where scorer = 'shuffled_alignment' and metric = 'auroc')
        as shuffled_alignment_95,
    max(estimate) filter (where scorer = 'universal' and metric = 'tpr_at_fpr_0.01')
        as universal_tpr_1,
    max(estimate) filter (where scorer = 'universal' and metric = 'tpr_at_fpr_0.05')
        as universal_tpr_5,
    max(estimate) filter (where scorer = 'universal' and metric = 'expected_calibration_error')
        as universal_ece
from figures
where prompt_set is not null
group by model, prompt_set
having count(*) filter (where scorer = 'universal') > 0
order by prompt_set, model
"""

_ERASURE = """
select
    model,
    max(estimate) filter (where scorer = 'probe_before') as before,
    max(estimate) filter (where scorer = 'probe_direction_removed') as direction_removed,
    max(estimate) filter (where scorer = 'probe_erased') as erased,
    max(estimate) filter (where scorer = 'probe_before_fresh') as before_fresh,
    max(estimate) filter (
        where scorer = 'probe_direction_removed_fresh'
    ) as direction_removed_fresh,
    max(estimate) filter (where scorer = 'probe_erased_fresh') as erased_fresh
from evaluations
where study_id = '{study_id}' and metric = 'auroc' and starts_with(scorer, 'probe_')
group by model
order by model
"""

_SINGULAR_VALUES = """
select
    component,
    max(estimate) filter (where scorer = 'universal') as singular_value,
    max(upper) filter (where scorer = 'random_direction') as random_95,
    max(upper) filter (where scorer = 'shuffled_labels') as shuffled_95
from evaluations
where study_id = '{study_id}' and metric = 'singular_value'
group by component
order by component
"""

_LAYER_PROFILE = """
select model, prompt_set, layer, auroc
from v_auroc
where kind = 'native' and prompt_set = '{evaluated}'
    and axis_id in (select axis_id from axes where prompt_set = '{prompts}')
    and model_id in (select model_id from evaluations where study_id = '{study_id}')
qualify auroc >= max(auroc) over (partition by model, prompt_set) or layer % 6 = 0
order by model, layer
"""

_RUNS = """
select command, status, device, rows, tokens, tokens_per_second, started_at
from runs
order by started_at
"""

_TABLES = (
    (
        "AUROC",
        "Probability that a prompt of the positive class projects above one of the negative. "
        "`native`: the model's own direction. `universal`: the shared axis, after the model's "
        "alignment. `leave_one_out`: the axis made without this model. Intervals are DeLong's, "
        "95 %. In sample, the prompts are those that the directions were fitted on: hold `native` "
        "there against `native_cv` (out of fold), and that against `cv_null_95` (its 95th "
        "percentile under shuffled labels). `bag_of_words` needs no model.",
        STUDY_TABLE,
    ),
    (
        "Beside the AUROCs",
        "`universal_cv`, `leave_one_out_cv`: the shared axes out of fold. "
        "`native_minus_universal`: on the same rows, out of fold where the prompts are those "
        "fitted on; its interval and `holm_p`, corrected over the study, are DeLong's. "
        "`random_95`, `shuffled_alignment_95`: 95th percentile of the AUROC of random directions "
        "and of the axis through alignments of shuffled rows. `universal_tpr_1`, `_5`: share "
        "caught at 1 % and 5 % false positives. `universal_ece`: calibration error of Platt "
        "probabilities fitted on other folds.",
        _BESIDE,
    ),
    (
        "Warnings",
        "What speaks against reading a figure as evidence: `figure` is held against `beside`. "
        "Where words or lengths alone do as well as an axis, the axis may see no more than they "
        "do, above all where the source of a prompt determines its label.",
        _WARNINGS,
    ),
    (
        "Diagnoses",
        "Cosine beside AUROC, and why they differ: from `axes diagnose`, empty before it was run.",
        _DIAGNOSES,
    ),
    (
        "How far the figures move",
        "Each choice that was made before any result, varied with all else as it is: `reference` "
        "every model in turn, `ridge_lambda` a factor of 0.001 to 1,000 on each model's own, "
        "`layer_fraction` the depth, `align_rows` the alignment rows, `prompts` directions of "
        "twenty random halves of the pairs, judged on the other half. A figure that moves by more "
        "than its interval is wide is a statement about the choice. Empty where it was not "
        "measured: `axes study sensitivity`.",
        _SENSITIVITY_TABLE,
    ),
    (
        "Alignment and cosines",
        "`alignment_r2`: share of the reference's variance that the map predicts on held-out "
        "alignment prompts, `shuffled_r2_95`: 95th percentile of the same with the pairs shuffled. "
        "Cosines stay high over many lambdas while AUROC moves: read both.",
        _ALIGNMENT_TABLE,
    ),
    (
        "Beside published figures",
        "What others report for these models, beside the same figure here. Empty where the study "
        "names none.",
        _PUBLISHED_TABLE,
    ),
    (
        "Singular values of the stacked directions",
        "With k models all alike the first is sqrt(k) and the rest are 0. `random_95`, "
        "`shuffled_95`: 95th percentiles for random directions, and for directions of one shuffled "
        "labelling of the prompts, carried over by the same maps.",
        _SINGULAR_VALUES,
    ),
    (
        "Erasure",
        "AUROC of a linear probe on prompts it has not seen: on activations as they are, without "
        "the one direction, and after LEACE. `fresh`: the eraser and the direction were fitted on "
        "other prompts than the probe, else on the same, where LEACE leaves nothing by "
        "construction.",
        _ERASURE,
    ),
    (
        "Layer profile",
        "AUROC of the native direction at every sixth layer and at the best one; the best is "
        "picked on the prompts shown, so it is an upper end and not a result.",
        _LAYER_PROFILE,
    ),
    ("Jobs", "Everything that was run on this warehouse.", _RUNS),
)


def print_study(root: Path, study_id: str, output_format: str) -> None:
    """Print the study table; on a terminal also what stands beside it. Warnings go to stderr."""
    connection = connect(root)

    def table(template: str) -> pa.Table:
        return query(connection, template.replace("{study_id}", study_id))

    show(table(STUDY_TABLE), output_format)
    if output_format in ("table", "markdown"):
        published = table(_PUBLISHED_TABLE)
        for beside in (published, verdicts(connection, study_id).table):
            if beside.num_rows:
                click.echo()
                show(beside, output_format)
    warnings = table(_WARNINGS_IN_SHORT).column("text").to_pylist()
    for warning in (*warnings, *sensitivity_warnings(connection, study_id)):
        click.echo(f"warning: {warning}", err=True)
    click.echo(f"study {study_id}", err=True)


def print_sensitivity(root: Path, study_id: str, output_format: str) -> None:
    """Print how far the figures of a study move, and what that warns of."""
    connection = connect(root)
    show(query(connection, _SENSITIVITY_TABLE.replace("{study_id}", study_id)), output_format)
    for warning in sensitivity_warnings(connection, study_id):
        click.echo(f"warning: {warning}", err=True)


def sensitivity_warnings(connection: Connection, study_id: str) -> list[str]:
    """One line for each universal AUROC that moves with a choice, or one that none was measured."""
    found = rows(
        connection,
        """
        select * from v_sensitivity
        where study_id = ? and figure = 'universal'
        order by prompt_set, model, spread desc
        """,
        [study_id],
    )
    if not found:
        return [
            "how far these figures move with the reference, lambda, depth, alignment rows and "
            f"prompts is not measured: run `axes study sensitivity {study_id[:8]}`"
        ]
    moved: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in found:
        if row["is_fragile"]:
            moved.setdefault((row["model"], row["prompt_set"]), []).append(row)
    return [
        f"{model} on {prompt_set}: the universal AUROC, {movements[0]['own']:.3f}, moves with "
        + "; ".join(map(_movement, movements))
        for (model, prompt_set), movements in moved.items()
    ]


def _movement(row: dict[str, Any]) -> str:
    """How far a figure moves with one choice, and what the cosine says meanwhile."""
    return (
        "{setting}: {least:.3f} ({value_at_least}, cosine {cosine_at_least:.2f}) to "
        "{greatest:.3f} ({value_at_greatest})".format(**row)
    )


def latest_study(connection: Connection, study: str | None = None) -> str:
    """The id of the last study, or the one that starts with `study`; raises `AxesError`."""
    found = rows(
        connection,
        """
        select evaluations.study_id, max(runs.started_at) as started_at
        from evaluations
        inner join runs on evaluations.run_id = runs.run_id
        where starts_with(evaluations.study_id, ?) and evaluations.fitted_on is null
        group by evaluations.study_id
        order by started_at
        """,
        [study or ""],
    )
    if not found:
        which = f"no study {study}" if study else "no study"
        raise AxesError(f"{which} in the warehouse: run `axes study` first")
    return found[-1]["study_id"]


def write_report(root: Path, output: Path, study: str | None = None) -> Path:
    """Write the report of a study (the last one unless given) and return its path."""
    connection = connect(root)
    study_id = latest_study(connection, study)
    parameters = json.loads(
        rows(connection, "select parameters from evaluations where study_id = ?", [study_id])[0][
            "parameters"
        ]
    )
    names = {
        "study_id": study_id,
        "prompts": parameters["prompts"],
        "evaluated": [parameters["prompts"], *parameters["evaluate"]][-1],
    }
    warnings = [f"- {line}" for line in sensitivity_warnings(connection, study_id)]
    parts = [f"# Study {study_id}\n", _definition(parameters)]
    if warnings:
        parts.append("## Warnings\n\n" + "\n".join(warnings) + "\n")
    for title, text, template in _TABLES:
        statement = template
        for name, value in names.items():
            statement = statement.replace(f"{{{name}}}", value)
        table = render(query(connection, statement), "markdown").decode()
        parts.append(f"## {title}\n\n{text}\n\n{table}\n```sql{statement}```\n")
    for claim in (verdicts(connection, study_id), *claim_tables(connection, study_id)):
        table = render(claim.table, "markdown").decode()
        parts.append(f"## {claim.title}\n\n{table}\n```sql\n{claim.statement}\n```\n")
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text("\n".join(parts))
    return output


def _definition(parameters: dict) -> str:
    lines = [f"| {name} | {value} |" for name, value in parameters.items()]
    return "\n".join(["| what | value |", "| --- | --- |", *lines]) + "\n"
