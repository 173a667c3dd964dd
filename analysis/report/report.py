"""A study's tables, printed or as a report in one file, and the SQL behind each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pyarrow as pa

from axes.analysis.report import tables
from axes.analysis.report import tables as study_tables
from axes.analysis.report.section import ask, fill, latest_study, study_definition, study_names
from axes.analysis.study.claims import claim_tables, verdicts
from axes.warehouse.connection import Connection, connect, query, rows
from axes.warehouse.errors import AxesError
from axes.warehouse.render import render, show

# Of the report as Markdown.
_TABLES = (
    study_tables.STUDY,
    study_tables.BESIDE,
    study_tables.WARNINGS,
    study_tables.DIAGNOSES,
    study_tables.SENSITIVITY,
    study_tables.ALIGNMENTS,
    study_tables.PUBLISHED,
    study_tables.SINGULAR_VALUES,
    study_tables.ERASURE,
    study_tables.LAYER_PROFILE,
    tables.RUNS,
)

_MARKDOWN, _PAGE = (".md", ".markdown"), (".html", ".htm")


def print_study(root: Path, study_id: str, output_format: str) -> None:
    """Print the study table; on a terminal also what stands beside it. Warnings go to stderr."""
    connection = connect(root)

    def table(template: str) -> pa.Table:
        return query(connection, fill(template, {"study_id": study_id}))

    show(table(study_tables.STUDY_TABLE), output_format)
    if output_format in ("table", "markdown"):
        published = table(study_tables.PUBLISHED_TABLE)
        for beside in (published, verdicts(connection, study_id).table):
            if beside.num_rows:
                click.echo()
                show(beside, output_format)
    for warning in warnings_in_short(connection, study_id):
        click.echo(f"warning: {warning}", err=True)
    click.echo(f"study {study_id}", err=True)


def print_sensitivity(root: Path, study_id: str, output_format: str) -> None:
    """Print how far the figures of a study move, and what that warns of."""
    connection = connect(root)
    statement = fill(study_tables.SENSITIVITY_TABLE, {"study_id": study_id})
    show(query(connection, statement), output_format)
    for warning in sensitivity_warnings(connection, study_id):
        click.echo(f"warning: {warning}", err=True)


def warnings_in_short(connection: Connection, study_id: str) -> list[str]:
    """What speaks against the figures of a study, in plain words, one scorer for all."""
    statement = fill(study_tables.WARNINGS_IN_SHORT, {"study_id": study_id})
    found = query(connection, statement).column("text").to_pylist()
    return [*found, *sensitivity_warnings(connection, study_id)]


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


def write_report(
    root: Path, output: Path, study: str | None = None, *, figures: Path | None = None
) -> Path:
    """Write the report of a study (the last one unless given) and return its path.

    As a page, or as Markdown where `output` ends in `.md`; every figure also as files of its own in
    the folder `figures`. Raises `AxesError` for another ending.
    """
    if output.suffix.lower() not in _MARKDOWN + _PAGE:
        raise AxesError(f"{output} is no report: give a file that ends in .html or .md")
    connection = connect(root)
    # Sums are added up in one order, so that the same rows give the same bytes.
    connection.execute("set threads = 1")
    study_id = latest_study(connection, study)
    if output.suffix.lower() in _MARKDOWN:
        _write_markdown(connection, study_id, output)
    else:
        from axes.analysis.report.page import write_page

        write_page(connection, study_id, output, warnings=warnings_in_short(connection, study_id))
    if figures is not None:
        from axes.analysis.report.page import write_chart_files

        write_chart_files(connection, study_id, figures)
    return output


def _write_markdown(connection: Connection, study_id: str, output: Path) -> None:
    names = study_names(connection, study_id)
    warnings = [f"- {line}" for line in sensitivity_warnings(connection, study_id)]
    parts = [f"# Study {study_id}\n", _definition(study_definition(connection, study_id))]
    if warnings:
        parts.append("## Warnings\n\n" + "\n".join(warnings) + "\n")
    for section in _TABLES:
        answer = ask(connection, section, names)
        table = render(answer.table, "markdown").decode()
        parts.append(
            f"## {section.title}\n\n{answer.reading}\n\n{table}\n```sql\n{answer.statement}\n```\n"
        )
    for claim in (verdicts(connection, study_id), *claim_tables(connection, study_id)):
        table = render(claim.table, "markdown").decode()
        parts.append(f"## {claim.title}\n\n{table}\n```sql\n{claim.statement}\n```\n")
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text("\n".join(parts))


def _definition(parameters: dict) -> str:
    lines = [f"| {name} | {value} |" for name, value in parameters.items()]
    return "\n".join(["| what | value |", "| --- | --- |", *lines]) + "\n"
