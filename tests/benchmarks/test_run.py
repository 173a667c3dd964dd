"""Rounds alternate, ratios are taken round by round, and every part can be run by name."""

from __future__ import annotations

import pytest

from benchmarks.run import Figure, alternate, main, median_figure, names, ratios


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


def test_parts_have_names_of_their_own_and_a_wrong_one_is_refused(capsys) -> None:
    assert {"ingest", "ingest.floor", "ingest.peer_ratios", "ingest.memory"} <= set(names())
    assert main(["ingest.typo"]) == 2
    assert "ingest.floor" in capsys.readouterr().err
