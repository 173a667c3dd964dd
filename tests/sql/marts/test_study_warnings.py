"""What speaks against a study's figures: one row per warning, with the numbers behind it."""

from __future__ import annotations

from pathlib import Path

import pytest

from axes.analysis.stats.auroc import Estimate
from axes.analysis.stats.baselines import explains
from axes.warehouse.connection import connect, rows
from tests.rows import Row, put

KEYS = ("model", "prompt_set", "scorer", "warning", "figure", "beside")


def area(scorer: str, estimate: float, lower: float, upper: float, **columns) -> Row:
    place = {"study_id": "s", "model": "m", "prompt_set": "one", "metric": "auroc"}
    interval = {"estimate": estimate, "lower": lower, "upper": upper, "is_in_sample": True}
    return {**place, "scorer": scorer, **interval, **columns}


def warnings(root: Path) -> list[tuple]:
    found = rows(connect(root), "from v_study_warnings order by all")
    assert all(row["text"] and row["study_id"] == "s" for row in found)
    return [tuple(row[key] for key in KEYS) for row in found]


def test_a_study_without_anything_to_warn_of_has_no_rows(root: Path) -> None:
    put(
        root,
        "evaluations",
        area("universal", 0.9, 0.85, 0.95),
        area("native", 0.95, 0.9, 0.99),
        area("native_cross_validated", 0.9, 0.85, 0.95),
        area("shuffled_labels_cross_validated", 0.5, 0.45, 0.55),
        area("bag_of_words", 0.55, 0.48, 0.62, model=None),
        area("prompt_length", 0.5, 0.43, 0.57, model=None),
        area("aligned", 0.9, None, None, prompt_set=None, metric="cosine_universal"),
    )
    assert warnings(root) == []


def test_each_warning_names_the_two_numbers_that_it_rests_on(root: Path) -> None:
    put(
        root,
        "evaluations",
        area("universal", 0.75, 0.6875, 0.8125),
        area("native", 1.0, 0.99, 1.0),
        area("native_cross_validated", 0.53125, 0.46875, 0.59375),
        area("shuffled_labels_cross_validated", 0.5, 0.4375, 0.5625),
        area("shuffled_alignment", 0.5, 0.25, 0.75),
        area("random_direction", 0.5, 0.3125, 0.6875),
        area("bag_of_words", 0.71875, 0.65625, 0.78125, model=None),
        area("prompt_length", 0.3125, 0.25, 0.375, model=None),
        area("universal", 0.25, 0.1875, 0.3125, prompt_set="two", is_in_sample=False),
        area("aligned", 0.75, None, None, prompt_set=None, metric="cosine_universal"),
        area("coverage", 3.0, None, None, metric="missing_count"),
        area("coverage", 5.0, None, None, metric="alignment_overlap"),
    )
    assert set(warnings(root)) == {
        ("m", "one", "universal", "bag_of_words", 0.75, 0.71875),
        ("m", "one", "native_cross_validated", "bag_of_words", 0.53125, 0.71875),
        ("m", "one", "native_cross_validated", "prompt_length", 0.53125, 0.6875),
        ("m", "one", "universal", "prompt_length", 0.75, 0.6875),
        ("m", "one", "native_cross_validated", "shuffled_labels", 0.53125, 0.5625),
        ("m", "one", "universal", "shuffled_alignment", 0.75, 0.75),
        ("m", "two", "universal", "reversed", 0.25, 0.5),
        ("m", "two", "universal", "cosine_alone", 0.25, 0.75),
        ("m", "one", None, "rows_missing", 3.0, 0.0),
        ("m", "one", None, "alignment_overlap", 5.0, 0.0),
    }


@pytest.mark.parametrize("baseline", [(0.5, 0.4, 0.6), (0.6, 0.51, 0.69), (0.85, 0.8, 0.9)])
@pytest.mark.parametrize("judged", [(0.55, 0.45, 0.65), (0.62, 0.58, 0.66), (0.95, 0.93, 0.97)])
def test_the_rule_is_that_of_the_python_function(root: Path, baseline, judged) -> None:
    put(
        root,
        "evaluations",
        area("universal", *judged),
        area("bag_of_words", *baseline, model=None),
    )
    is_warned = any(row[3] == "bag_of_words" for row in warnings(root))
    assert is_warned is explains(Estimate(*baseline), Estimate(*judged))
