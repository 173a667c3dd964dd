"""The claims of the source study, one by one, as the rows at hand decide them.

The rules are in SQL (`sql/marts/study/v_claims.sql` and a view for each claim) and in words in
docs/methods.md; here they are printed.

Figures that others published for a study's models, as rows beside the study's own.

Two studies side by side: what differs in their definitions, and every headline figure.

Where both judged the same prompts, the difference of two AUROCs has DeLong's paired interval, from
the projections that are stored.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from axes.analysis.projections import read_scores
from axes.analysis.stats.auroc import Estimate, auroc_difference
from axes.analysis.study.definition import StudyDefinition
from axes.warehouse.connection import Connection, connect, query, rows
from axes.warehouse.runs import record_run
from axes.warehouse.writer import content_key, rows_table, write_rows

_VERDICTS = """
select
    claim, prompt_set, verdict, model, estimate, lower, upper, null_value, to_decide
from v_claims
where study_id = '{study_id}'
order by position, prompt_set
"""

_MODELS = """
select prompt_set, model, estimate, lower, upper, null_value, is_met, is_refuted
from v_claim_{claim}
where study_id = '{study_id}'
order by prompt_set, model
"""


@dataclass(frozen=True)
class ClaimTable:
    """A claim in words, the SQL behind it, and the rows that it brings."""

    title: str
    statement: str
    table: pa.Table


def verdicts(connection: Connection, study_id: str) -> ClaimTable:
    """Every claim with its verdict, estimate, interval and null."""
    return _asked(connection, "The claims of the source study", _VERDICTS, study_id)


def claim_tables(connection: Connection, study_id: str) -> list[ClaimTable]:
    """Every claim model by model."""
    claims = rows(
        connection,
        "select distinct position, claim, text from v_claims where study_id = ? order by position",
        [study_id],
    )
    return [
        _asked(connection, row["text"], _MODELS.replace("{claim}", row["claim"]), study_id)
        for row in claims
    ]


def _asked(connection: Connection, title: str, template: str, study_id: str) -> ClaimTable:
    statement = template.replace("{study_id}", study_id).strip()
    return ClaimTable(title, statement, query(connection, statement))


# How the metric of a published figure ends: `auroc_published`, `cosine_universal_published`.
PUBLISHED = "_published"


def write_published(
    root: Path,
    study_id: str,
    definition: StudyDefinition,
    published: Mapping[str, Mapping[str, float]],
) -> None:
    """Write the figures, model -> figure -> value, unless they are there as they are now."""
    wanted = {
        (model, figure): value for model, of in published.items() for figure, value in of.items()
    }
    found = rows(
        connect(root),
        "select model, scorer, estimate from evaluations "
        "where study_id = ? and ends_with(metric, ?)",
        [study_id, PUBLISHED],
    )
    if {(row["model"], row["scorer"]): row["estimate"] for row in found} == wanted:
        return
    with record_run(root, "study published", {"study_id": study_id, "figures": published}) as run:
        described = [
            {
                "study_id": study_id,
                "model": model,
                "prompt_set": None if figure.startswith("cosine") else definition.prompts,
                "scorer": figure,
                "metric": ("cosine" if figure.startswith("cosine") else "auroc") + PUBLISHED,
                "estimate": value,
                "parameters": json.dumps(asdict(definition), sort_keys=True),
                "run_id": run.run_id,
            }
            for (model, figure), value in wanted.items()
        ]
        name = content_key(study_id, "published")
        write_rows(root, "evaluations", rows_table("evaluations", described), name=name)
        run.rows = len(described)


_FIGURES = """
with
first as (
    select * from evaluations where study_id = $first and model is not null
),

second as (
    select * from evaluations where study_id = $second and model is not null
),

headline as (
    select * from (
        values
        ('native', 'auroc'),
        ('universal', 'auroc'),
        ('leave_one_out', 'auroc'),
        ('native_cross_validated', 'auroc'),
        ('universal_cross_validated', 'auroc'),
        ('leave_one_out_cross_validated', 'auroc'),
        ('aligned', 'cosine_universal'),
        ('aligned', 'r2_held_out')
    ) as listed (scorer, metric)
)

select
    coalesce(first.model, second.model) as model,
    coalesce(first.prompt_set, second.prompt_set) as prompt_set,
    case headline.metric
        when 'auroc' then headline.scorer
        when 'r2_held_out' then 'alignment_r2'
        else headline.metric
    end as figure,
    first.estimate as a,
    second.estimate as b,
    second.estimate - first.estimate as difference,
    first.axis_id as a_axis,
    second.axis_id as b_axis,
    first.model_id as a_model,
    second.model_id as b_model
from first
full join second
    on
        first.model = second.model
        and first.prompt_set is not distinct from second.prompt_set
        and first.scorer = second.scorer
        and first.metric = second.metric
inner join headline
    on
        headline.scorer = coalesce(first.scorer, second.scorer)
        and headline.metric = coalesce(first.metric, second.metric)
order by prompt_set nulls last, figure, model
"""


def definition_differences(
    connection: Connection, first: str, second: str
) -> list[dict[str, str | None]]:
    """The fields in which two studies differ; `-` where one of them does not have it."""
    a, b = (_stated(connection, study_id) for study_id in (first, second))
    return [
        {"field": name, "a": _text(a, name), "b": _text(b, name)}
        for name in sorted({*a, *b})
        if name not in a or name not in b or a[name] != b[name]
    ]


def figure_differences(connection: Connection, first: str, second: str) -> list[dict[str, Any]]:
    """Every headline figure of both, second minus first, with a paired interval where it can be."""
    found = rows(connection, _FIGURES, {"first": first, "second": second})
    return [
        {
            **{name: row[name] for name in ("model", "prompt_set", "figure", "a", "b")},
            "difference": row["difference"],
            "lower": interval.lower,
            "upper": interval.upper,
            "p_value": interval.p_value,
        }
        for row in found
        for interval in (_paired(connection, row),)
    ]


def _paired(connection: Connection, row: dict[str, Any]) -> Estimate:
    """The interval of the difference where both axes scored the same prompts with labels."""
    axes = (row["a_axis"], row["b_axis"])
    if row["prompt_set"] is None or row["difference"] is None or None in axes:
        return Estimate(0.0)
    a, b = (
        read_scores(connection, axis, model_id, row["prompt_set"], allow_missing=True)
        for axis, model_id in zip(axes, (row["a_model"], row["b_model"]), strict=True)
    )
    if a.row_set_hash != b.row_set_hash:
        return Estimate(0.0)
    return auroc_difference(b.values, a.values, a.labels, groups=a.groups)


def _stated(connection: Connection, study_id: str) -> dict[str, Any]:
    found = rows(
        connection, "select parameters from evaluations where study_id = ? limit 1", [study_id]
    )
    return json.loads(found[0]["parameters"])


def _text(definition: dict[str, Any], name: str) -> str:
    return json.dumps(definition[name]) if name in definition else "-"
