"""A small campaign: what the full one shows with figures in docs/worlds.md has not broken."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.worlds import nulls, page, recovery
from benchmarks.worlds.intervals import measure_intervals
from benchmarks.worlds.methods import measure_methods
from benchmarks.worlds.rates import Rate, rate
from benchmarks.worlds.verdicts import VerdictRates

WORLDS = 20
SWAPPED = "labels of a set swapped"


def shares(found: list[Rate]) -> dict[str, float]:
    return {one.name: one.share for one in found}


def test_intervals_hold_the_truth_in_most_worlds() -> None:
    """Of 20 fair intervals fewer than 16 hold the truth once in 400 times."""
    for one in measure_intervals(WORLDS):
        if one.goal:
            assert one.share >= 0.8, one.name


def test_tests_reject_seldom_where_nothing_is_planted_and_naive_ones_almost_always(monkeypatch):
    monkeypatch.setattr(nulls, "SHUFFLES", 59)
    found = nulls.measure_nulls(WORLDS)
    for one in found:
        if one.goal:
            assert one.share <= 0.2, one.name
    naive = shares(found)["singular-value gap, random directions (for contrast)"]
    assert naive > 0.9


def test_intervals_and_tests_of_concepts_subspaces_and_rates_are_about_right() -> None:
    for one in measure_methods(6):
        assert one.share <= 0.4 if one.lowest < 0.5 else one.share >= 0.6, one.name


def test_what_is_planted_is_recovered_transferred_and_flagged(monkeypatch):
    """The faults that a diagnosis names, but for one, are planted in test_diagnostics.py."""
    monkeypatch.setattr(recovery, "FAULTS", {SWAPPED: recovery.FAULTS[SWAPPED]})
    for one in recovery.measure_recovery(2):
        assert one.holds is not False, one.name


def test_a_rate_has_the_error_of_a_share_and_holds_within_its_goal() -> None:
    even = rate("part", "name", [True, False] * 50, (0.4, 0.6))
    assert even.share == 0.5 and even.error == pytest.approx(0.05)
    assert even.holds and not rate("part", "name", np.ones(10), (0.4, 0.6)).holds
    assert rate("part", "name", [True]).holds is None


def test_the_page_has_a_row_for_every_rate() -> None:
    given = {("shared_axis", "supported"): 3, ("shared_axis", "cannot tell"): 1}
    verdicts = [VerdictRates(rate("verdicts", "a world", [True, False, False, False]), given)]
    text = page([rate("part", "a coverage", [True, True, False, True], (0.7, 0.8))], verdicts, 1)
    assert "| part | a coverage | 0.7500 | 0.2165 | 4 | 0.7 to 0.8 | yes |" in text
    assert "| a world | 4 | 0.250 | 3 / 0 / 0 / 1 | 0 / 0 / 0 / 0 | 0 / 0 / 0 / 0 |" in text
    assert "| 0.5 | " in text
