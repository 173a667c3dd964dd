from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from docs.notebook import FILE, cells, run
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


def test_the_notebook_of_the_docs_is_of_these_cells_and_has_outputs():
    stored = json.loads(Path(FILE).read_text())
    assert ["".join(cell["source"]) for cell in stored["cells"]] == [
        cell["source"] for cell in cells()
    ], "run `python -m docs.notebook --root lake`"
    for cell in stored["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] and cell["execution_count"]
    assert "/tmp/" not in Path(FILE).read_text() and Path(FILE).stat().st_size < 500_000
