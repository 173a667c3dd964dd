"""The tables of methods: light to import, every line resolves, docs and comments list the names."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from axes.analysis.methods import ALIGNMENTS, DIRECTIONS, LAMBDA_POLICIES, UNIVERSALS, load
from axes.analysis.stats import CALIBRATIONS, CORRECTIONS
from axes.warehouse.connection import connect, rows
from axes.warehouse.tables.schemas import TABLES
from tests.doc_blocks import blocks
from tests.worlds import make_world

CHECKOUT = Path(__file__).parents[3]
LINES = [
    *(method.fitter for method in DIRECTIONS.values()),
    *(method.procedure for method in ALIGNMENTS.values()),
    *(LAMBDA_POLICIES | UNIVERSALS | CALIBRATIONS | CORRECTIONS).values(),
]


def test_names_load_without_what_computes():
    heavy = ("numpy", "scipy", "sklearn", "torch", "pyarrow", "duckdb")
    code = (
        "import sys, axes.analysis.methods, axes.analysis.stats, axes.analysis.study.definition\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "[]\n", result.stderr


@pytest.mark.parametrize("line", LINES)
def test_every_line_points_to_a_function_or_a_class(line):
    assert callable(load(line))


@pytest.mark.parametrize(
    ("table", "column", "methods"),
    [
        ("alignments", "method", ALIGNMENTS),
        ("alignments", "lambda_policy", LAMBDA_POLICIES),
        ("calibrations", "method", CALIBRATIONS),
    ],
)
def test_the_comment_of_a_column_lists_the_names(table, column, methods):
    comment = TABLES[table].schema.field(column).metadata[b"comment"].decode()
    assert [name for name in re.findall(r"\w+", comment) if name in methods] == list(methods)


@pytest.mark.parametrize("methods", [DIRECTIONS, ALIGNMENTS, UNIVERSALS, CALIBRATIONS])
def test_every_method_is_described(methods):
    text = (CHECKOUT / "docs" / "methods.md").read_text()
    assert [name for name in methods if f"`{name}`" not in text] == []


def test_the_how_to_adds_a_direction_and_an_alignment(tmp_path):
    """The page followed to the letter, in a copy of the package: two modules and two lines."""
    page = (CHECKOUT / "docs" / "howto" / "method.md").read_text()
    shutil.copytree(CHECKOUT / "axes", tmp_path / "axes")
    methods = tmp_path / "axes" / "analysis" / "methods"
    for block in blocks("method.md", page):
        if block.file:
            (methods / block.file).write_text(block.code)
        elif block.language == "text":
            kind = re.search(r'": (\w+)\(', block.code)[1]
            start, line = f"dict[str, {kind}] = {{\n", f"    {block.code.strip()}\n"
            table = (methods / "__init__.py").read_text()
            assert table.count(start) == 1
            (methods / "__init__.py").write_text(table.replace(start, start + line))
    models = ("smollm2-135m", "gemma3-270m", "qwen2.5-coder-0.5b")
    root = tmp_path / "lake"
    make_world(
        root,
        widths=dict.fromkeys(models, 12),
        labelled={"demo_safety": 20},
        benign_count=30,
        layer_count=2,
    )
    fit, study = re.findall(r"`axes ((?:fit|study) [^`]+)`", page)
    code = "import sys; from axes.cli.main import cli\n"
    for words in (fit, f"{study} --align benign --no-ingest"):
        arguments = [*words.split(), "--root", str(root)]
        code += f"cli({arguments}, standalone_mode=False)\n"
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)})
    assert result.returncode == 0
    fitted = rows(connect(root), "select distinct kind, method from axes where kind = 'native'")
    assert fitted == [{"kind": "native", "method": "median_diff"}]
    aligned = rows(connect(root), "select distinct method from alignments order by all")
    assert [row["method"] for row in aligned] == ["identity", "mean_shift"]
