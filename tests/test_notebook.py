from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from docs.notebook import CELLS, FILE, PAGES, cells, page_cells, run
from tests.analysis.conftest import studied

__all__ = ["studied"]


@pytest.fixture(scope="module")
def ran(studied: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    root = shutil.copytree(studied, tmp_path_factory.mktemp("notebook") / "lake")
    return list(run(root).cells)


def shown(cell: dict, kind: str) -> str:
    """What a cell shows of a MIME type, in one text."""
    return "".join(str(output.get("data", {}).get(kind, "")) for output in cell["outputs"])


def test_every_cell_runs_on_a_tiny_warehouse(ran):
    code = [cell for cell in ran if cell["cell_type"] == "code"]
    assert all(output["output_type"] != "error" for cell in code for output in cell["outputs"])
    assert all(cell["outputs"] for cell in code)


def test_results_are_tables_with_intervals_and_projections_are_those_stored(ran):
    by_source = {cell["source"].splitlines()[-1]: cell for cell in ran}
    study = shown(by_source["study"], "text/html")
    assert "<table>" in study and " to " in study and "<p>" in study
    assert "axis universal/gamma" in shown(by_source["axis"], "text/html")
    (printed,) = (
        output["text"]
        for cell in ran
        for output in cell.get("outputs", [])
        if "largest difference" in output.get("text", "")
    )
    assert float(printed.split()[-1]) < 1e-4
    assert any(shown(cell, "image/png") for cell in ran if cell["cell_type"] == "code")


NOTEBOOKS = {FILE: CELLS} | {page.with_suffix(".ipynb"): page_cells(page) for page in PAGES}


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_of_the_docs_is_of_its_cells_and_has_outputs(file: Path):
    """Those of pages have the code that the tests of the docs run."""
    stored = json.loads(file.read_text())
    assert ["".join(cell["source"]) for cell in stored["cells"]] == [
        cell["source"] for cell in cells(NOTEBOOKS[file])
    ], "run `python -m docs.notebook --root lake`"
    code = [cell for cell in stored["cells"] if cell["cell_type"] == "code"]
    assert all(cell["execution_count"] for cell in code)
    shown = [cell["outputs"] for cell in code[file != FILE :]]
    assert all(shown)
    assert all(each["output_type"] != "error" for outputs in shown for each in outputs)
    assert "/tmp/" not in file.read_text() and file.stat().st_size < 500_000


def test_every_question_has_a_notebook():
    assert len(PAGES) == 5
    for page in PAGES:
        assert f"({page.stem}.ipynb)" in page.read_text()
        assert any("axes." in code for _, code in page_cells(page))
