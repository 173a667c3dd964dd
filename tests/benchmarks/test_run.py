"""Rounds alternate, ratios are taken round by round, and every part can be run by name."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace

import pytest

from benchmarks import run
from benchmarks.run import CAMPAIGNS, Figure, alternate, chosen, main, median_figure, names, ratios


def test_every_second_round_runs_backwards_and_each_keeps_its_own_seconds() -> None:
    calls: list[str] = []

    def timed(name: str, seconds: float):
        return lambda: calls.append(name) or seconds

    first, second = alternate(3, timed("a", 1.0), timed("b", 2.0))
    assert "".join(calls) == "abbaab"
    assert (first, second) == ([1.0] * 3, [2.0] * 3)


def test_a_slow_round_is_divided_by_its_own_floor() -> None:
    figure = median_figure("x", ratios([2.0, 40.0, 3.0], [1.0, 20.0, 1.0]), 2.5, "lower")
    assert (figure.value, figure.low, figure.high) == (2.0, 2.0, 3.0)
    assert figure.holds


@pytest.mark.parametrize(
    ("goal", "better", "holds"),
    [(1.0, "lower", True), (0.9, "lower", False), (1.1, "higher", False), (None, "lower", None)],
)
def test_a_figure_holds_on_the_good_side_of_its_goal(goal, better, holds) -> None:
    assert Figure("x", 1.0, goal, better).holds is holds


def test_a_package_stands_for_its_parts_and_a_wrong_name_is_refused(capsys) -> None:
    of_ingest = [name for name in names() if name.startswith("ingest.")]
    assert {"ingest.floor", "ingest.peer_ratios", "ingest.projections"} <= set(of_ingest)
    assert chosen(["ingest"]) == of_ingest
    assert chosen(["faults", "help"]) == ["faults", "help"]
    assert set(chosen([])) == set(names()) - set(CAMPAIGNS) and set(CAMPAIGNS) < set(names())
    assert main(["ingest.typo"]) == 2
    assert "ingest.floor" in capsys.readouterr().err


def test_a_run_writes_its_section_of_the_page_with_its_machine(monkeypatch, tmp_path) -> None:
    page = tmp_path / "page.md"
    monkeypatch.setattr(run, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(run, "PAGE", page)
    for name, goal in (("alpha", 1.0), ("beta", None)):
        figure = Figure(f"of {name}|x", 1.23456, goal, "lower", 1.0, 2.0, "10 rows")
        measure = SimpleNamespace(measure=lambda figure=figure: [figure])
        monkeypatch.setitem(sys.modules, f"benchmarks.{name}", measure)
        run.run(name)
    assert "## alpha" in page.read_text() and "## beta" in page.read_text()
    assert "| of alpha\\|x | 1.235 | 1 to 2 | <= 1 | no | 10 rows |" in page.read_text()
    assert "| of beta\\|x | 1.235 | 1 to 2 |  |  | 10 rows |" in page.read_text()
    assert f"{len(os.sched_getaffinity(0))} cores of" in page.read_text()


def test_the_committed_page_is_that_of_the_committed_results() -> None:
    assert run.PAGE.read_text() == run.page(run.RESULTS)
