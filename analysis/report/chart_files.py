"""Every figure of a report as files: the chart as SVG and PNG, its rows as CSV, its SQL."""

from __future__ import annotations

from pathlib import Path

import vl_convert

from axes.analysis.report.charts.theme import PAPER
from axes.analysis.report.contents import PARTS
from axes.analysis.report.page import specification, vega_lite_version
from axes.analysis.report.section import ask, study_names
from axes.warehouse.connection import Connection
from axes.warehouse.render import render

# Pixels of the PNG for each of the SVG.
_SCALE = 2.0


def write_chart_files(connection: Connection, study_id: str, folder: Path) -> list[Path]:
    """Write NAME.csv and NAME.sql of every section that has rows, NAME.svg and .png of charts."""
    folder.mkdir(parents=True, exist_ok=True)
    names = study_names(connection, study_id)
    written = []
    for section in (section for sections in PARTS.values() for section in sections):
        answer = ask(connection, section, names)
        if not answer.table.num_rows:
            continue
        contents: dict[str, bytes] = {
            "csv": render(answer.table, "csv"),
            "sql": f"{answer.statement};\n".encode(),
        }
        if section.draw is not None:
            spec = specification(answer)
            spec["datasets"] = {"rows": answer.table.to_pylist()}
            version = vega_lite_version()
            contents["svg"] = vl_convert.vegalite_to_svg(
                spec, vl_version=version, config=PAPER
            ).encode()
            contents["png"] = vl_convert.vegalite_to_png(
                spec, vl_version=version, config=PAPER, scale=_SCALE
            )
        for suffix, content in contents.items():
            path = folder / f"{section.name}.{suffix}"
            path.write_bytes(content)
            written.append(path)
    return written
