"""A study's tables, printed or as a report in one file, and the SQL behind each."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import chain, groupby
from pathlib import Path

from axes.analysis.report import tables
from axes.analysis.report.section import SectionContent, latest_study
from axes.analysis.study.claims import ClaimTable, claim_tables
from axes.warehouse.connection import Connection, connect, query, rows
from axes.warehouse.errors import AxesError
from axes.warehouse.render import markdown_text, render, visible
from axes.warehouse.storage.files import replacing

# Markdown has no rows of a chart with more: the page draws them.
_MAX_ROWS = 500
_MARKDOWN, _PAGE = (".md", ".markdown"), (".html", ".htm")


def warnings_in_short(connection: Connection, study_id: str) -> list[str]:
    """The warnings about a study's metrics as sentences, one scorer for all."""
    stored = query(connection, tables.WARNINGS_IN_SHORT, {"study_id": study_id})
    return [*stored.column("text").to_pylist(), *sensitivity_warnings(connection, study_id)]


def sensitivity_warnings(connection: Connection, study_id: str) -> list[str]:
    """One line for each universal AUROC that depends on a setting, or that none was measured."""
    ranges = rows(
        connection,
        """
        select * from v_sensitivity
        where study_id = ? and metric = 'universal'
        order by prompt_set, model, spread desc
        """,
        [study_id],
    )
    if not ranges:
        return [
            "the sensitivity of these metrics to the reference, lambda, depth, alignment rows and "
            f"prompts is not measured: run `axes study sensitivity {study_id[:8]}`"
        ]
    fragile = [row for row in ranges if row["is_fragile"]]
    by_metric = groupby(fragile, lambda row: (row["model"], row["prompt_set"], row["own"]))
    return [
        f"{model} on {prompt_set}: the universal AUROC, {own:.3f}, depends on "
        # The cosine may stay high where the AUROC is at its minimum.
        + "; ".join(
            "{setting}: {metric_min:.3f} ({value_at_min}, cosine {cosine_at_min:.2f}) to "
            "{metric_max:.3f} ({value_at_max})".format(**row)
            for row in changes
        )
        for (model, prompt_set, own), changes in by_metric
    ]


def write_report(
    root: Path, output: Path, study: str | None = None, *, figures: Path | None = None
) -> Path:
    """Write the report of a study (by default the last one) and return its path.

    As a page, or as Markdown where `output` ends in `.md`; every chart and table also as separate
    files in the folder `figures`. Raises `AxesError` for another suffix.
    """
    if output.suffix.lower() not in _MARKDOWN + _PAGE:
        raise AxesError(f"{output} is not a report: give a file that ends in .html or .md")
    from axes.analysis.report.page import page, query_contents, write_chart_files

    # Sums are added up in one order, so that the same rows give the same bytes.
    connection = connect(root, settings={"threads": 1})
    study_id = latest_study(connection, study)
    contents = query_contents(connection, study_id)
    if output.suffix.lower() in _MARKDOWN:
        text = _markdown(connection, study_id, [*chain.from_iterable(contents.values())])
    else:
        warnings = warnings_in_short(connection, study_id)
        text = page(connection, study_id, contents, warnings=warnings)
    output.parent.mkdir(parents=True, exist_ok=True)
    with replacing(output) as temporary:
        temporary.write_text(text, encoding="utf-8")
    if figures is not None:
        write_chart_files(contents, figures)
    return output


def _markdown(connection: Connection, study_id: str, contents: Iterable[SectionContent]) -> str:
    """The sections of the page, charts as their rows, and the models behind each claim."""
    parts = [f"# Study {study_id}\n"]
    warnings = [f"- {markdown_text(line)}" for line in sensitivity_warnings(connection, study_id)]
    if warnings:
        parts.append("## Warnings\n\n" + "\n".join(warnings) + "\n")
    blocks: list[tuple[str, str, SectionContent | ClaimTable]] = [
        *((content.section.title, f"{content.explanation}\n\n", content) for content in contents),
        *((claim.title, "", claim) for claim in claim_tables(connection, study_id)),
    ]
    for title, explanation, part in blocks:
        table = f"{part.table.num_rows:,} rows: see the page, or run\n"
        if part.table.num_rows <= _MAX_ROWS:
            table = render(part.table, "markdown").decode()
        # Longer than any run of backticks in a name that the statement quotes.
        fence = "`" * max(3, 1 + max(map(len, re.findall("`+", part.statement)), default=0))
        sql = f"{fence}sql\n{visible(part.statement)}\n{fence}\n"
        parts.append(f"## {title}\n\n{explanation}{table}\n{sql}")
    return "\n".join(parts)
