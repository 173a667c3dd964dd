"""A study next to others: the source study's claims, published values, and a second study.

The rules of the claims are in SQL (`v_claims`, `v_claim_estimates`) and in words in
docs/claims.md; here they are read. Published values are rows next to the study's. Two studies are
compared by their definitions and every headline metric: where both evaluated the same prompts, the
difference of two AUROCs has DeLong's paired interval, from the stored projections.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import pyarrow as pa

from axes.analysis.projections import read_scores
from axes.analysis.stats.auroc import Estimate, auroc_difference
from axes.analysis.study.definition import EVERY_MODEL, StudyDefinition
from axes.analysis.study.evaluations import Evaluation, stored_parameters, write_evaluations
from axes.warehouse.connection import Connection, query, rows
from axes.warehouse.handle import Warehouse
from axes.warehouse.names import sql_literal
from axes.warehouse.writer import content_key

# How the metric of a published value ends: `auroc_published`, `cosine_universal_published`.
PUBLISHED = "_published"

_VERDICTS = """
select
    claim, prompt_set, verdict, cause, model, estimate, lower, upper, null_value,
    smallest_effect, study_count, to_decide
from v_claims
where study_id = {study_id}
order by position, prompt_set
"""

_MODELS = """
select prompt_set, model, estimate, lower, upper, null_value, is_met, is_refuted
from v_claim_estimates
where claim = {claim} and study_id = {study_id}
order by prompt_set, model
"""


@dataclass(frozen=True)
class ClaimTable:
    """A claim in words, the SQL behind it, and its rows."""

    title: str
    statement: str
    table: pa.Table


def verdicts(connection: Connection, study_id: str) -> ClaimTable:
    """Every claim with its verdict, estimate, interval and null."""
    return _claim_table(connection, "The claims of the source study", _VERDICTS, study_id)


def claim_tables(connection: Connection, study_id: str) -> list[ClaimTable]:
    """Every claim model by model."""
    claims = rows(
        connection,
        "select distinct position, claim, text from v_claims where study_id = ? order by position",
        [study_id],
    )
    return [
        _claim_table(connection, row["text"], _MODELS, study_id, row["claim"]) for row in claims
    ]


def _claim_table(
    connection: Connection, title: str, template: str, study_id: str, claim: str = ""
) -> ClaimTable:
    names = {"study_id": sql_literal(study_id), "claim": sql_literal(claim)}
    statement = template.format(**names).strip()
    return ClaimTable(title, statement, query(connection, statement))


def write_published(
    warehouse: Warehouse,
    study_id: str,
    definition: StudyDefinition,
    published: Mapping[str, dict[str, float]],
) -> None:
    """Write published values, model -> metric -> value, unless they are stored as they are now.

    Those of `*` are of each model of the study; those of any other model are left out.
    """
    values = {
        (name.partition("@")[0], metric): value
        for name in definition.models
        for metric, value in (published.get(EVERY_MODEL, {}) | published.get(name, {})).items()
    }
    stored = warehouse.query(
        "select model, scorer, estimate from evaluations "
        "where study_id = ? and ends_with(metric, ?)",
        [study_id, PUBLISHED],
    ).to_pylist()
    if {(row["model"], row["scorer"]): row["estimate"] for row in stored} == values:
        return
    parameters = {"study_id": study_id, "figures": published}
    with warehouse.run("study published", parameters) as run:
        rows = [
            Evaluation(
                scorer=metric,
                metric=("cosine" if metric.startswith("cosine") else "auroc") + PUBLISHED,
                estimate=value,
                model=model,
                prompt_set=None if metric.startswith("cosine") else definition.prompts,
            )
            for (model, metric), value in values.items()
        ]
        name = content_key(study_id, "published")
        write_evaluations(warehouse, run, study_id, asdict(definition), rows, name=name)


_HEADLINES = """
select
    model,
    prompt_set,
    headline.name as metric,
    pick(estimate, study_id, $first) as a,
    pick(estimate, study_id, $second) as b,
    b - a as difference,
    pick(axis_id, study_id, $first) as a_axis,
    pick(axis_id, study_id, $second) as b_axis,
    pick(model_id, study_id, $first) as a_model,
    pick(model_id, study_id, $second) as b_model
from evaluations
inner join (
    values
    ('native', 'auroc', 'native'),
    ('universal', 'auroc', 'universal'),
    ('leave_one_out', 'auroc', 'leave_one_out'),
    ('native_cross_validated', 'auroc', 'native_cross_validated'),
    ('universal_cross_validated', 'auroc', 'universal_cross_validated'),
    ('leave_one_out_cross_validated', 'auroc', 'leave_one_out_cross_validated'),
    ('aligned', 'cosine_universal', 'cosine_universal'),
    ('aligned', 'r2_held_out', 'alignment_r2')
) as headline (scorer, metric, name) using (scorer, metric)
where model is not null and study_id in ($first, $second)
group by model, prompt_set, headline.name
order by prompt_set nulls last, headline.name, model
"""


def definition_differences(
    connection: Connection, first: str, second: str
) -> list[dict[str, str | None]]:
    """The fields in which two studies differ; `-` where one of them does not have it."""
    a, b = (
        {name: json.dumps(value) for name, value in stored_parameters(connection, study_id).items()}
        for study_id in (first, second)
    )
    return [
        {"field": name, "a": a.get(name, "-"), "b": b.get(name, "-")}
        for name in sorted({*a, *b})
        if a.get(name) != b.get(name)
    ]


def metric_differences(warehouse: Warehouse, first: str, second: str) -> list[dict[str, object]]:
    """Every headline metric of both, second minus first, with a paired interval where possible."""
    headlines = rows(warehouse.connection, _HEADLINES, {"first": first, "second": second})
    for row in headlines:
        scorers = [(row.pop(f"{study}_axis"), row.pop(f"{study}_model")) for study in ("a", "b")]
        interval = _paired_interval(warehouse, row["prompt_set"], scorers)
        row |= {end: getattr(interval, end) for end in ("lower", "upper", "p_value")}
    return headlines


def _paired_interval(
    warehouse: Warehouse, prompt_set: str | None, scorers: Sequence[tuple[str | None, str | None]]
) -> Estimate:
    """The interval of the difference where both axes scored the same prompts with labels."""
    scores = [
        read_scores(warehouse, axis, model, prompt_set, allow_missing=True)
        for axis, model in scorers
        if axis is not None and model is not None and prompt_set is not None
    ]
    if len(scores) < 2 or scores[0].row_set_hash != scores[1].row_set_hash:
        return Estimate(0.0)
    a, b = scores
    return auroc_difference(b.values, a.values, a.labels, a.groups)
