"""The report as a page: whole, self-contained, and with no number that its SQL does not bring."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import polars as pl
import pytest
from markupsafe import escape

from axes.analysis.report.page import PARTS, drawing_library
from axes.analysis.report.report import write_report
from axes.analysis.report.section import latest_study, query_section, study_names
from axes.warehouse.connection import Connection, connect, query
from axes.warehouse.errors import AxesError
from axes.warehouse.render import render
from tests.commands import ok
from tests.reported import PLANTED
from tests.worlds import make_group

SECTIONS = {section.name: section for sections in PARTS.values() for section in sections}
CHARTS = [name for name, section in SECTIONS.items() if section.draw]
# What the fixture's study has no rows of: it names no published figures, and nothing is amiss.
NOT_THERE = {"concepts", "published", "warnings"}
INTERVALS = {"native_95", "universal_95", "leave_one_out_95", "universal_tpr_1_95", "difference_95"}


class Page(HTMLParser):
    """What a browser would find: elements, text by section, embedded JSON, tables."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.json: dict[str, Any] = {}
        self.sql: dict[str, str] = {}
        self.text: dict[str, str] = {}
        self.cells: dict[str, list[list[str]]] = {}
        self._section = self._script = self._element = ""
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.elements.append((tag, attributes))
        self._element = tag
        if tag == "section":
            self._section = str(attributes["id"])
            self.text[self._section] = ""
        if tag == "script":
            self._script = str(attributes.get("id", ""))
        if tag == "tr":
            self.cells.setdefault(self._section, []).append([])
        if tag == "td":
            self.cells[self._section][-1].append(attributes.get("data-value") or "")

    def handle_endtag(self, tag: str) -> None:
        self._element = ""
        if tag == "section":
            self._section = ""

    def handle_data(self, data: str) -> None:
        if self._element == "script":
            if self._script:
                self.json[self._script] = json.loads(data)
            return
        if self._element == "code" and self.elements[-2][0] == "pre":
            self.sql[self._section] = data
        if self._section:
            self.text[self._section] += data

    def rows(self, name: str) -> list[dict[str, Any]]:
        """The rows that a chart is drawn from, as the page's script reads them."""
        columns = {
            column: held
            if isinstance(held, list)
            else [None if place is None else held["values"][place] for place in held["places"]]
            for column, held in self.json[f"rows-{name}"].items()
        }
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


@pytest.fixture(scope="module")
def page(written) -> Page:
    return Page(written)


def one_thread(root: Path) -> Connection:
    return connect(root, settings={"threads": 1})


def test_every_section_is_there_with_its_sql_and_is_linked(page):
    assert list(page.text) == list(SECTIONS)
    assert page.sql.keys() == SECTIONS.keys()
    links = {attributes.get("href") for tag, attributes in page.elements if tag == "a"}
    assert {f"#{name}" for name in SECTIONS} <= links
    missing = [
        name for name, text in page.text.items() if name not in page.cells and name not in CHARTS
    ]
    assert set(missing) == NOT_THERE


def test_the_rows_of_every_chart_are_those_that_its_sql_brings(page, reported):
    connection = one_thread(reported)
    for name in CHARTS:
        expected = query(connection, page.sql[name]).to_pylist()
        assert page.rows(name) == expected != []


def test_the_cells_of_every_table_are_those_that_its_sql_brings(page, reported):
    connection = one_thread(reported)
    for name in SECTIONS.keys() - set(CHARTS) - NOT_THERE:
        expected = query(connection, page.sql[name]).to_pylist()
        (_, *found) = page.cells[name]
        assert len(found) == len(expected) > 0
        for cells, row in zip(found, expected, strict=True):
            # An interval in words stands in the cell of the number before it.
            shown = {key: value for key, value in row.items() if key not in INTERVALS}
            for cell, value in zip(cells, shown.values(), strict=True):
                if isinstance(value, float):
                    assert float(cell) == value


def test_the_answer_stands_above_the_contents(written, reported):
    """Every verdict, the numbers on prompts not fitted on, and the best baseline."""
    html = written.read_text()
    top = html.split("<main")[1].split("<nav")[0]
    (study_id,) = query(connect(reported), "select study_id from v_studies")["study_id"].to_pylist()
    names = study_names(connect(reported), study_id)
    claims, study = (
        query_section(connect(reported), SECTIONS[name], names).table.to_pylist()
        for name in ("claims", "study")
    )
    for row in claims:
        verdict = f">{row['verdict']}</strong> {escape(row['claim'])}"
        assert verdict in top
        assert escape(row["cause"] or row["to_decide"] or "") in top
    for row in study:
        assert f"{row['model']} on {row['prompt_set']}: native {row['native']:.3f}, " in top
        assert f"best baseline {row['baseline']:.3f} ({row['best_baseline']})" in top


def test_an_interval_stands_below_its_number(page):
    assert "to 0." in page.text["study"] and "native 95" not in page.text["study"]


def test_an_id_with_a_quote_is_text_in_every_section(reported):
    """Ids come from files that others wrote: they are bound, and quoted where they are shown."""
    connection = one_thread(reported)
    foreign = "x' or true; create table planted as select 1 --"
    names = dict.fromkeys(study_names(connection, latest_study(connection)), foreign)
    for section in SECTIONS.values():
        content = query_section(connection, section, names)
        assert query(connection, content.statement) == content.table
        if "$" in section.sql:
            assert "'x'' or true;" in content.statement
            assert content.table.num_rows == 0
    planted = "select 1 from information_schema.tables where table_name = 'planted'"
    assert query(connection, planted).num_rows == 0


def test_the_roc_holds_the_area_that_was_planted(page):
    world = make_group(**PLANTED)
    by = ("prompt_set", "model", "scorer")
    curves = groupby(page.rows("roc"), key=lambda row: tuple(row[name] for name in by))
    areas = {}
    for key, points in curves:
        held = list(points)
        x = [point["false_positive_rate"] for point in held]
        y = [point["true_positive_rate"] for point in held]
        assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1)
        areas[key] = (np.trapezoid(y, x), held[0])
    assert len(areas) == 2 * 2 * 2
    for (prompt_set, model, _), (area, first) in areas.items():
        assert area == pytest.approx(first["auroc"], abs=0.003)
        assert first["lower"] < first["auroc"] < first["upper"]
        if prompt_set == "other":
            planted = world.auroc(model, world.planted(model))
            assert area == pytest.approx(planted, abs=0.06)


def test_what_was_not_computed_is_named_with_the_command_that_does(planted_study, page):
    connection = connect(planted_study)
    study_id = latest_study(connection)
    names = study_names(connection, study_id)
    axis = "universal/greek/1/labelled/benign/lambda-held_out"
    for name, command in {
        "thresholds": f"axes transfer {axis} --prompts labelled",
        "drift": f"axes drift --axis {axis}",
        "sensitivity": f"axes study sensitivity {study_id}",
        "diagnoses": f"axes diagnose {study_id}",
        "trajectories": "axes ingest traces MODEL --prompts labelled",
    }.items():
        content = query_section(connection, SECTIONS[name], names)
        assert content.table.num_rows == 0 and command in content.missing
    assert "add them to a study file" in page.text["published"]


def test_nothing_is_loaded_from_anywhere(written, page):
    for tag, attributes in page.elements:
        assert not attributes.keys() & {"src", "srcset", "srcdoc", "data", "poster", "action"}
        assert tag not in ("link", "img", "iframe", "object", "embed", "base")
        if "href" in attributes:
            assert tag == "a"
        assert not any(name.startswith("on") for name in attributes)
    (policy,) = (
        attributes["content"]
        for tag, attributes in page.elements
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    )
    assert "default-src 'none'" in policy and "http" not in policy and "eval" not in policy
    style = written.read_text().split("<style>")[1].split("</style>")[0]
    assert "url(" not in style and "@import" not in style


def test_it_is_small_and_the_same_rows_give_the_same_bytes(written, reported, tmp_path):
    assert written.stat().st_size < 3_000_000
    again = write_report(reported, tmp_path / "again.html")
    assert again.read_bytes() == written.read_bytes()


def test_the_library_cannot_end_its_script_element():
    assert "</script" not in drawing_library()


def test_headings_descend_by_one_and_every_picture_is_described(page):
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    drawn = [attributes for _, attributes in page.elements if "data-chart" in attributes]
    assert len(drawn) == len(CHARTS)
    assert all(attributes["aria-label"] and attributes["role"] == "region" for attributes in drawn)
    for name in CHARTS:
        assert page.json[f"spec-{name}"]["description"]


def test_the_classes_are_called_what_their_labels_call_them(planted_study, tmp_path):
    """Nothing but the rows says which concept it is."""
    root = shutil.copytree(planted_study, tmp_path / "lake")
    for path in (root / "labels" / "labeler=dataset").glob("*.parquet"):
        labels = pl.read_parquet(path, hive_partitioning=False)
        named = pl.when("is_positive").then(pl.lit("formal")).otherwise(pl.lit("casual"))
        labels.with_columns(named.alias("label")).write_parquet(path)
    page = Page(write_report(root, tmp_path / "report.html"))
    assert {row["label"] for row in page.rows("densities")} == {"formal", "casual"}
    said = json.dumps([page.text, page.json]).lower()
    assert "unsafe" not in said and "formal" in page.text["prompt_sets"]


def test_colours_can_be_read_in_the_light_and_in_the_dark(written):
    style = written.read_text().split("<style>")[1]
    named = re.findall(r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\)", style)
    for theme in (0, 1):
        colours = {name: pair[theme] for name, *pair in named}
        for surface in ("paper", "raised"):
            for name in ("ink", "soft", "link"):
                assert _contrast(colours[name], colours[surface]) >= 4.5
        for name, colour in colours.items():
            if name.startswith("series-"):
                assert _contrast(colour, colours["paper"]) >= 3


def _contrast(one: str, other: str) -> float:
    """As WCAG 2 defines it."""

    def luminance(colour: str) -> float:
        shares = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
        linear = np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_the_ending_decides_between_page_and_markdown(reported, tmp_path):
    markdown = write_report(reported, tmp_path / "report.md").read_text()
    assert markdown.startswith("# Study ") and "<html" not in markdown
    titles = [section.title for section in SECTIONS.values()]
    assert all(f"\n## {title}\n" in markdown for title in titles)
    with pytest.raises(AxesError, match=r"report\.pdf is not a report: .*\.html or \.md"):
        write_report(reported, tmp_path / "report.pdf")


def test_a_warehouse_without_a_study_says_what_to_do(root, tmp_path):
    with pytest.raises(AxesError, match="no study in the warehouse: run `axes study` first"):
        write_report(root, tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_no_plotting_library_is_imported_before_a_page_is_written():
    asked = (
        "import sys, axes.cli.study, axes.analysis.report.report; print('altair' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", asked], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"


def test_a_study_whose_axis_is_gone_says_what_to_do(planted_study, tmp_path):
    root = shutil.copytree(planted_study, tmp_path / "lake")
    for path in (root / "axes").glob("[0-9a-f]*.parquet"):
        path.unlink()
    with pytest.raises(AxesError, match=r"universal axis of study \w+ is not in the warehouse"):
        write_report(root, tmp_path / "report.html")


@pytest.fixture(scope="module")
def figures(reported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the files that the command writes."""
    folder = tmp_path_factory.mktemp("files")
    report, figures = folder / "report.md", folder / "figures"
    study_id = latest_study(connect(reported))
    words = ["report", study_id[:6], "-o", report, "--figures", figures, "--root", reported]
    result = ok(*words)
    assert result.stdout.strip() == str(report) and report.exists()
    return figures


def test_the_rows_of_every_file_are_those_of_the_sql_beside_it(reported, figures):
    connection = one_thread(reported)
    asked = sorted(figures.glob("*.sql"))
    assert len(asked) > len(CHARTS)
    for path in asked:
        table = query(connection, path.read_text())
        assert path.with_suffix(".csv").read_bytes() == render(table, "csv")
        assert table.num_rows == len(pl.read_csv(path.with_suffix(".csv"), infer_schema=False)) > 0


@pytest.mark.parametrize("name", CHARTS)
def test_every_chart_is_a_picture_with_words(figures, name):
    drawn = ElementTree.parse(figures / f"{name}.svg").getroot()
    named = "shuffled labels" if name == "singular_values" else "alpha"
    assert named in " ".join(drawn.itertext())
    marks = list(drawn.iter("{http://www.w3.org/2000/svg}path"))
    assert len(marks) > 5
    assert "NaN" not in (figures / f"{name}.svg").read_text()
    assert (figures / f"{name}.png").read_bytes().startswith(b"\x89PNG")
