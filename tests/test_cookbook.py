"""The cookbook's questions run on any warehouse, and say on the demo's what the page says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from analysis.definition import StudyDefinition
from analysis.study import run_study
from docs.recipes import answers, recipes, recorded
from tests.worlds import make_world
from warehouse.connection import Connection, connect, query

CHECKOUT = Path(__file__).parent.parent
DEMO = Path(os.environ.get("AXES_DEMO_ROOT") or CHECKOUT / "lake")
MODELS = ("smollm2-135m", "gemma3-270m", "qwen2.5-coder-0.5b")


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Connection:
    """The demo's models and sets on a small scale, with a planted axis, studied."""
    root = tmp_path_factory.mktemp("cookbook") / "lake"
    labelled = {"demo_safety": 40}
    widths = dict.fromkeys(MODELS, 16)
    make_world(root, widths=widths, labelled=labelled, benign_count=60, layer_count=3)
    definition = StudyDefinition(
        models=MODELS, reference=MODELS[-1], prompts="demo_safety", align="benign"
    )
    run_study(root, definition)
    return connect(root)


def test_there_are_thirty_questions_each_with_its_answer() -> None:
    assert len(recipes()) == 30
    for name, sql in recipes().items():
        assert "?" in sql.splitlines()[0]
        assert recorded(name).endswith("rows)\n") or recorded(name).endswith("(1 row)\n")


@pytest.mark.parametrize("name", recipes())
def test_a_question_runs_on_a_planted_warehouse(planted: Connection, name: str) -> None:
    result = query(planted, recipes()[name])
    assert result.num_columns > 0
    if name in ("15_study", "24_detection"):
        assert min(result.column(2).to_pylist()) > 0.9


@pytest.mark.skipif(
    not (DEMO / "warehouse.json").exists(), reason=f"no demo warehouse in {DEMO}: make demo"
)
def test_the_demo_says_what_the_page_says() -> None:
    assert answers(DEMO) == {name: recorded(name) for name in recipes()}
