"""Every figure as files: pictures that are pictures, and rows that are the SQL's."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import polars as pl
import pytest
from click.testing import CliRunner

from axes.analysis.report.page import PARTS
from axes.cli.main import cli
from axes.warehouse.connection import connect, query
from axes.warehouse.render import render
from tests.reported import put_the_rest, studied_world

SECTIONS = [section for sections in PARTS.values() for section in sections]
CHARTS = [section.name for section in SECTIONS if section.draw]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The warehouse, and the folder of the files."""
    folder = tmp_path_factory.mktemp("files")
    world, study_id = studied_world(folder / "lake")
    put_the_rest(world.root, study_id)
    report, figures = folder / "report.md", folder / "figures"
    arguments = ["report", study_id[:6], "-o", report, "--figures", figures, "--root", world.root]
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == str(report) and report.exists()
    return world.root, folder / "figures"


def test_the_rows_of_every_file_are_those_of_the_sql_beside_it(written):
    root, folder = written
    connection = connect(root)
    connection.execute("set threads = 1")
    asked = sorted(folder.glob("*.sql"))
    assert len(asked) > len(CHARTS)
    for path in asked:
        table = query(connection, path.read_text())
        assert path.with_suffix(".csv").read_bytes() == render(table, "csv")
        assert table.num_rows == len(pl.read_csv(path.with_suffix(".csv"), infer_schema=False)) > 0


@pytest.mark.parametrize("name", CHARTS)
def test_every_chart_is_a_picture_with_words(written, name):
    _, folder = written
    drawn = ElementTree.parse(folder / f"{name}.svg").getroot()
    named = "shuffled labels" if name == "singular_values" else "alpha"
    assert named in " ".join(drawn.itertext())
    marks = list(drawn.iter("{http://www.w3.org/2000/svg}path"))
    assert len(marks) > 5
    assert "NaN" not in (folder / f"{name}.svg").read_text()
    assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
