"""What speaks against a study's figures: one row per warning, with the numbers behind it."""

from __future__ import annotations

import json
from pathlib import Path

from axes.warehouse.connection import connect, rows
from tests.rows import Row, put

DIFFERENCE = {"metric": "auroc_difference", "is_in_sample": False}
KEYS = ("model", "prompt_set", "scorer", "warning", "metric_value", "compared_with")


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
        area("native_cross_validated", 0.9, 0.85, 0.95, is_in_sample=False),
        area("shuffled_labels_cross_validated", 0.5, 0.45, 0.55),
        area("native_minus_tf_idf_cross_validated", 0.35, 0.3, 0.4, **DIFFERENCE),
        area("aligned", 0.9, None, None, prompt_set=None, metric="cosine_universal"),
    )
    assert warnings(root) == []


def test_each_warning_names_the_two_numbers_that_it_rests_on(root: Path) -> None:
    put(
        root,
        "evaluations",
        area("universal", 0.75, 0.6875, 0.8125),
        area("native", 1.0, 0.99, 1.0),
        area("native_cross_validated", 0.53125, 0.46875, 0.59375, is_in_sample=False),
        area("shuffled_labels_cross_validated", 0.5, 0.4375, 0.5625),
        area("shuffled_alignment", 0.5, 0.25, 0.75),
        area("random_direction", 0.5, 0.3125, 0.6875),
        area("universal_cross_validated", 0.75, 0.6875, 0.8125, is_in_sample=False),
        area("universal_minus_tf_idf_cross_validated", 0.125, -0.125, 0.375, **DIFFERENCE),
        area("universal_minus_word_pairs_cross_validated", 0.0625, 0.015625, 0.1, **DIFFERENCE),
        area("native_minus_tf_idf_cross_validated", 0.03125, 0.015625, 0.1, **DIFFERENCE),
        area("universal", 0.25, 0.1875, 0.3125, prompt_set="two", is_in_sample=False),
        area("aligned", 0.75, None, None, prompt_set=None, metric="cosine_universal"),
        area("coverage", 3.0, None, None, metric="missing_count"),
        area("coverage", 5.0, None, None, metric="alignment_overlap"),
    )
    assert set(warnings(root)) == {
        ("m", "one", "universal_cross_validated", "surface", 0.75, 0.625),
        ("m", "one", "native", "no_signal", 0.53125, 0.5),
        ("m", "two", "universal", "surface", 0.25, None),
        ("m", "one", "native_cross_validated", "shuffled_labels", 0.53125, 0.5625),
        ("m", "one", "universal", "shuffled_alignment", 0.75, 0.75),
        ("m", "two", "universal", "reversed", 0.25, 0.5),
        ("m", "two", "universal", "cosine_alone", 0.25, 0.75),
        ("m", "one", None, "rows_missing", 3.0, 0.0),
        ("m", "one", None, "alignment_overlap", 5.0, 0.0),
    }


def test_an_axis_whose_directions_outweigh_each_other_has_no_sign(root: Path) -> None:
    for axis_id, weights in {"tie": [0.8, -0.8], "clear": [0.8, -0.2], "imported": None}.items():
        put(root, "axes", {"axis_id": axis_id, "parameters": json.dumps({"weights": weights})})
    put(
        root,
        "evaluations",
        area("universal", 0.9, 0.85, 0.95, axis_id="clear"),
        area("leave_one_out", 0.75, 0.7, 0.8, axis_id="tie"),
        area("universal", 0.9, 0.85, 0.95, axis_id="imported", prompt_set="two"),
    )
    found = [row for row in warnings(root) if row[3] == "sign_undetermined"]
    assert found == [("m", "one", "leave_one_out", "sign_undetermined", 0.75, 0.5)]
