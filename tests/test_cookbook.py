"""The cookbook's questions run on any warehouse, and say on the demo's what the page says."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path

import pytest

from axes.warehouse.connection import Connection, connect, query
from docs.recipes import answer, recipes, recorded

CHECKOUT = Path(__file__).parent.parent
DEMO = Path(os.environ.get("AXES_DEMO_ROOT") or CHECKOUT / "lake")


@pytest.fixture(scope="module")
def planted(demo: Path) -> Connection:
    return connect(demo)


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
@pytest.mark.parametrize("name", recipes())
def test_the_demo_says_what_the_page_says(name: str) -> None:
    """Up to what another processor changes: last digits, and with them the order of near ties."""
    said, written = _columns(answer(connect(DEMO), name)), _columns(recorded(name))
    assert said.keys() == written.keys()
    for column, values in written.items():
        found = said[column]
        assert len(found) == pytest.approx(len(values), rel=0.2)
        shorter = min(len(found), len(values))
        try:
            numbers, others = (sorted(map(float, cells))[:shorter] for cells in (found, values))
        except ValueError:
            alike = sum((Counter(found) & Counter(values)).values())
            assert alike >= 0.8 * len(values), column
        else:
            assert numbers == pytest.approx(others, rel=0.05, abs=0.03), column


def _columns(table: str) -> dict[str, list[str]]:
    """The cells of a printed table by column."""
    header, rule, *lines = table.splitlines()[:-1]
    places = [match.span() for match in re.finditer("─+", rule)]
    return {
        header[start:end].strip(): [line[start:end].strip() for line in lines]
        for start, end in places
    }


def test_a_printed_table_is_taken_apart_by_column() -> None:
    assert _columns("a   bc\n──  ────\n1   x y\n22  z\n(2 rows)\n") == {
        "a": ["1", "22"],
        "bc": ["x y", "z"],
    }
