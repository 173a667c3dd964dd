"""A report as one HTML file that loads nothing: the same rows give the same bytes.

Charts are Vega-Lite specifications with their rows next to them; the libraries that draw them are
part of the file (vl-convert's bundle), and its content security policy forbids every request.
`PARTS` are the parts of the report in order, with their sections. `write_chart_files` writes every
chart as SVG and PNG, with its rows as CSV and its SQL.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from importlib.metadata import version
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import altair as alt
import jinja2
import pyarrow as pa
import vl_convert
from markupsafe import Markup, escape

from axes.analysis.report import concept_tables, tables
from axes.analysis.report.charts import agreement, generation, separation
from axes.analysis.report.charts.theme import PAGE, PAPER, Json
from axes.analysis.report.section import (
    Row,
    Rows,
    Section,
    SectionContent,
    query_section,
    study_names,
)
from axes.analysis.study.evaluations import stored_parameters
from axes.warehouse.connection import Connection
from axes.warehouse.render import finite, render, visible
from axes.warehouse.storage.files import replacing

# Run at the end of the bundle, where the libraries have these names.
_SET_GLOBALLY = "window.vegaEmbed = vegaEmbed;"
_TEMPLATES = Path(__file__).parent / "templates"
_VERDICTS = {"supported": "supported", "not supported": "refuted"}
_VERDICTS |= dict.fromkeys(("undecided", "cannot tell"), "undecided")
# A text column is its distinct values and the index of each row's.
Columns = dict[str, list | dict[str, list]]
# The title of each part of the report, and the sections of one study.
Contents = Mapping[str, Sequence[SectionContent]]
# A text longer than this may be broken over lines.
_NAME_LENGTH = 42


@dataclass(frozen=True)
class _Cell:
    """One cell of a table: `value` is the sort key, where that is not the text."""

    text: str
    kind: str
    value: str | None = None
    interval: str = ""


@dataclass(frozen=True)
class _Answer:
    """A claim with its verdict on some prompt sets, and the cause or what would decide it."""

    claim: str
    verdict: str
    kind: str
    prompt_sets: str
    cause: str


@dataclass(frozen=True)
class _View:
    """What the template shows of a section: a chart (`spec`, `rows`), or a table of `cells`."""

    section: Section
    content: SectionContent
    alternative: str
    spec: Json | None
    rows: Columns | None
    names: list[str]
    cells: list[list[_Cell]]


def query_contents(connection: Connection, study_id: str) -> Contents:
    """The rows of every section of `PARTS`."""
    names = study_names(connection, study_id)
    return {
        title: [query_section(connection, section, names) for section in sections]
        for title, sections in PARTS.items()
    }


def page(
    connection: Connection, study_id: str, contents: Contents, *, warnings: Sequence[str]
) -> str:
    """The page of a study, the warnings above all else."""
    parts = {title: list(map(_view, sections)) for title, sections in contents.items()}
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters |= {"marked": _marked, "embedded": _embedded}
    rows = {
        view.section.name: view.content.table.to_pylist()
        for views in parts.values()
        for view in views
    }
    definition = stored_parameters(connection, study_id)
    return environment.get_template("report.html").render(
        title=f"Study {definition['label']}: {', '.join(definition['models'])}",
        summary=_summary(definition),
        study_id=study_id,
        version=version("safety-axes"),
        answers=_answers(rows["claims"]),
        results=[_result(row) for row in rows["study"]],
        warnings=warnings,
        parts=parts,
        config=PAGE,
        style=Markup((_TEMPLATES / "report.css").read_text()),
        library=Markup(drawing_library()),
        script=Markup((_TEMPLATES / "report.js").read_text()),
    )


@cache
def drawing_library() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script that sets `vegaEmbed`."""
    bundle = vl_convert.javascript_bundle(_SET_GLOBALLY, vega_lite_version())
    # The names stay local; a closing tag within a string would end the script element.
    return "(() => {" + bundle.replace("</script", "<\\/script") + "})();"


def vega_lite_version() -> str:
    """The version of Vega-Lite that Altair writes, in the form that vl-convert takes."""
    return alt.SCHEMA_VERSION.removeprefix("v").rpartition(".")[0]


def specification(content: SectionContent, rows: Rows) -> Json:
    """The Vega-Lite specification of a section with a chart, without its rows."""
    assert content.section.draw is not None
    chart = content.section.draw(rows)
    spec = chart.properties(description=_alternative(content)).to_dict()
    return {name: value for name, value in spec.items() if name not in ("$schema", "config")}


def columns(table: pa.Table) -> Columns:
    """The rows column by column; text as its distinct values and the index of each row's."""
    encoded: Columns = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        if pa.types.is_string(column.type):
            text = column.combine_chunks().dictionary_encode()
            encoded[name] = {
                "values": text.dictionary.to_pylist(),
                "places": text.indices.to_pylist(),
            }
        else:
            encoded[name] = finite(column.to_pylist())
    return encoded


def _view(content: SectionContent) -> _View:
    rows = content.table.to_pylist()
    is_chart = bool(rows) and content.section.draw is not None
    intervals = _interval_names(content.table.schema)
    names = [name for name in content.table.column_names if name not in intervals.values()]
    cells = [
        [replace(_cell(row[name]), interval=row.get(intervals.get(name)) or "") for name in names]
        for row in rows
    ]
    return _View(
        content.section,
        content,
        _alternative(content),
        specification(content, rows) if is_chart else None,
        columns(content.table) if is_chart else None,
        names,
        [] if is_chart else cells,
    )


def _interval_names(schema: pa.Schema) -> dict[str, str]:
    """Column of a number -> the column after it that has its interval in words."""
    return {
        before.name: field.name
        for before, field in pairwise(schema)
        if field.name.endswith("_95")
        and pa.types.is_string(field.type)
        and pa.types.is_floating(before.type)
    }


def _answers(claims: Rows) -> list[_Answer]:
    """The verdict on every claim, prompt sets with the same one together."""
    prompt_sets: dict[tuple[str, str, str], list[str]] = {}
    for row in claims:
        key = (row["claim"], row["verdict"], row["cause"] or row["to_decide"] or "")
        prompt_sets.setdefault(key, []).append(row["prompt_set"])
    return [
        _Answer(claim, verdict, _VERDICTS.get(verdict, "undecided"), ", ".join(sets), cause)
        for (claim, verdict, cause), sets in prompt_sets.items()
    ]


def _result(row: Row) -> str:
    """A row of the main table in words."""

    def number(name: str) -> str:
        return "not stored" if row[name] is None else f"{row[name]:.3f}"

    return (
        f"{row['model']} on {row['prompt_set']}: native {number('native')}, universal "
        f"{number('universal')}, leave one out {number('leave_one_out')}; best baseline "
        f"{number('baseline')}" + (f" ({row['best_baseline']})" if row["best_baseline"] else "")
    )


def _alternative(content: SectionContent) -> str:
    """The chart or table in words, for a reader who does not see it."""
    title = content.section.title
    if content.section.draw is None:
        return f"Table: {title}"
    return f"Chart: {title}. Its {content.table.num_rows} rows are listed below it."


def _summary(definition: Mapping[str, Any]) -> str:
    """The study in one sentence."""
    evaluated = ", ".join(dict.fromkeys((definition["prompts"], *definition["evaluate"])))
    return (
        f"{len(definition['models'])} models; directions by {definition['direction']} of "
        f"{definition['prompts']}, aligned ({definition['alignment']}) to "
        f"{definition['reference']} on {definition['align']}, evaluated on {evaluated}."
    )


def _cell(value: Any) -> _Cell:
    if value is None:
        return _Cell("", "name", "")
    if isinstance(value, bool):
        return _Cell("yes" if value else "no", "name")
    if isinstance(value, int):
        return _Cell(f"{value:,}", "number", str(value))
    if isinstance(value, float):
        is_extreme = abs(value) >= 1e4 or 0 < abs(value) < 1e-3
        return _Cell(f"{value:.3g}" if is_extreme else f"{value:.3f}", "number", repr(value))
    if isinstance(value, datetime):
        return _Cell(f"{value:%Y-%m-%d %H:%M}", "name", value.isoformat())
    text = str(value)
    if text in _VERDICTS:
        return _Cell(text, f"name {_VERDICTS[text]}")
    return _Cell(text, "name" if len(text) <= _NAME_LENGTH else "text")


def _marked(text: str) -> Markup:
    """Text with `code` as HTML."""
    pieces = text.split("`")
    return Markup("").join(
        Markup(f"<code>{escape(piece)}</code>") if index % 2 else escape(piece)
        for index, piece in enumerate(pieces)
    )


def _embedded(value: Any) -> Markup:
    """JSON that may stand within a script element."""
    written = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup(written.replace("<", "\\u003c"))


PARTS: dict[str, tuple[Section, ...]] = {
    "Results": (tables.CLAIMS, tables.STUDY, separation.AREAS, tables.WARNINGS),
    "Class separation": (
        separation.ROC,
        separation.DENSITIES,
        separation.LAYER_AREAS,
        separation.LAYER_NORMS,
        tables.IN_SAMPLE,
        tables.BESIDE,
        tables.ERASURE,
    ),
    "Agreement between models": (
        agreement.COSINES,
        tables.ALIGNMENTS,
        agreement.SINGULAR_VALUES,
        tables.DIAGNOSES,
        agreement.SENSITIVITY,
        tables.SENSITIVITY,
        agreement.THRESHOLDS,
        concept_tables.CONCEPTS,
    ),
    "Generation": (generation.TRAJECTORIES, generation.DRIFT),
    "Provenance": (
        tables.DEFINITION,
        tables.MODELS,
        tables.PROMPT_SETS,
        tables.COVERAGE,
        tables.AXES,
        tables.RUNS,
        tables.LIBRARIES,
        tables.PUBLISHED,
    ),
}


# Pixels of the PNG for each of the SVG.
_SCALE = 2.0


def write_chart_files(contents: Contents, folder: Path) -> None:
    """Write NAME.csv and NAME.sql of every section that has rows, NAME.svg and .png of charts."""
    folder.mkdir(parents=True, exist_ok=True)
    for content in chain.from_iterable(contents.values()):
        rows = [
            {
                name: visible(value) if isinstance(value, str) else value
                for name, value in row.items()
            }
            for row in content.table.to_pylist()
        ]
        if not rows:
            continue
        files: dict[str, bytes] = {
            "csv": render(content.table, "csv"),
            "sql": f"{content.statement};\n".encode(),
        }
        if content.section.draw is not None:
            spec = {**specification(content, rows), "datasets": {"rows": rows}}
            look: Any = {"vl_version": vega_lite_version(), "config": PAPER}
            files["svg"] = vl_convert.vegalite_to_svg(spec, **look).encode()
            files["png"] = vl_convert.vegalite_to_png(spec, **look, scale=_SCALE)
        for suffix, data in files.items():
            path = folder / f"{content.section.name}.{suffix}"
            with replacing(path) as temporary:
                temporary.write_bytes(data)
