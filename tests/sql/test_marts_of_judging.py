"""Thresholds across models, sources across sources, layers as many tests: given rows, told rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from axes.warehouse.connection import Connection, connect, rows
from tests.rows import Row, put, put_prompts


def single(connection: Connection, statement: str, parameters: Any = None) -> Any:
    (row,) = rows(connection, statement, parameters)
    (value,) = row.values()
    return value


@pytest.mark.parametrize("knots", [[0.0], [-1.0, 0.5, 4.0]])
def test_interpolate_is_numpys(empty: Connection, knots: list[float]) -> None:
    values = np.linspace(0.1, 0.9, len(knots)).tolist()
    for x in (-9.0, -1.0, 0.0, 0.2, 0.5, 3.0, 4.0, 9.0):
        found = single(empty, "select interpolate(?, ?::double[], ?::double[])", [x, knots, values])
        assert found == pytest.approx(np.interp(x, knots, values))
    assert single(empty, "select interpolate(null, [1.0], [2.0])") is None


def test_calibrated_takes_slopes_and_knots(empty: Connection) -> None:
    sloped = json.dumps({"slope": 2.0, "intercept": -1.0})
    knotted = json.dumps({"x": [0.0, 1.0], "y": [0.2, 0.6]})
    assert single(empty, "select calibrated(0.5, ?)", [sloped]) == pytest.approx(0.5)
    assert single(empty, "select calibrated(-1e6, ?)", [sloped]) == pytest.approx(0.0)
    assert single(empty, "select calibrated(0.25, ?)", [knotted]) == pytest.approx(0.3)


def test_a_calibration_is_applied_to_its_own_axis_and_model_only(root: Path) -> None:
    put_prompts(root, "one", {"p": True, "q": False})
    put(root, "axes", {"axis_id": "x"}, {"axis_id": "y"})
    for model, axis_id in (("m", "x"), ("n", "x"), ("m", "y")):
        common = {"model": model, "model_id": model, "axis_id": axis_id}
        put(
            root,
            "projections",
            {**common, "prompt_id": "p", "projection": 1.0},
            {**common, "prompt_id": "q", "projection": 0.0},
        )
    put(
        root,
        "calibrations",
        {
            "calibration_id": "c",
            "model": "m",
            "model_id": "m",
            "axis_id": "x",
            "method": "platt",
            "parameters": '{"slope": 0.0, "intercept": 0.0}',
            "threshold": 1.0,
            "prompt_ids": ["q"],
        },
    )
    asked = """
        select model, axis_id, prompt_id, probability, is_predicted_positive, is_calibration_row
        from v_calibrated_projections order by prompt_id
    """
    assert [tuple(row.values()) for row in rows(connect(root), asked)] == [
        ("m", "x", "p", 0.5, True, False),
        ("m", "x", "q", 0.5, False, True),
    ]


def pair(
    method: str, fitted_on: str, model: str, *, loss: Row | None = None, shift: Row | None = None
) -> list[Row]:
    """The figures of one threshold on one model; nothing lost and nothing shifted by default."""
    common = {"study_id": "s", "scorer": method, "fitted_on": fitted_on, "model": model}
    none = {"estimate": 0.0, "lower": -0.01, "upper": 0.01, "p_value_adjusted": 1.0}
    level = {"estimate": 0.75, "lower": 0.7, "upper": 0.8}
    return [
        {**common, **level, "metric": "balanced_accuracy"},
        {**common, "metric": "accuracy_loss", **none, **(loss or {})},
        {**common, "metric": "false_positive_shift", **none, **(shift or {})},
    ]


LOST = {"estimate": 0.3, "lower": 0.2, "upper": 0.4, "p_value_adjusted": 0.01}
SHIFTED = {"estimate": -0.5, "lower": -0.6, "upper": -0.4, "p_value_adjusted": 0.01}
UNSURE = {"estimate": 0.1, "lower": -0.2, "upper": 0.4, "p_value_adjusted": 0.9}
SMALL_BUT_SURE = {"estimate": 0.02, "lower": 0.01, "upper": 0.03, "p_value_adjusted": 0.001}


@pytest.mark.parametrize(
    ("there", "back", "verdict"),
    [
        ({}, {}, "carries over"),
        ({"loss": SMALL_BUT_SURE}, {"shift": SMALL_BUT_SURE}, "carries over"),
        ({"loss": LOST}, {"shift": SHIFTED}, "fails"),
        ({"loss": LOST}, {}, "mixed"),
        ({"loss": LOST}, {"loss": UNSURE}, "mixed"),
        ({"loss": UNSURE}, {}, "undecided"),
        ({"shift": UNSURE}, {"shift": UNSURE}, "undecided"),
    ],
)
def test_the_verdict_on_thresholds_needs_evidence_either_way(
    root: Path, there: dict, back: dict, verdict: str
) -> None:
    put(root, "evaluations", *pair("platt", "m", "m"), *pair("platt", "n", "n"))
    put(root, "evaluations", *pair("platt", "m", "n", **there), *pair("platt", "n", "m", **back))
    (found,) = rows(connect(root), "from v_transfer_verdicts")
    assert (found["verdict"], found["pair_count"]) == (verdict, 2)
    assert found["own_accuracy"] == found["transferred_accuracy"] == 0.75


def test_a_threshold_of_its_own_is_marked_and_not_counted(root: Path) -> None:
    put(root, "evaluations", *pair("platt", "m", "m", loss=LOST), *pair("platt", "m", "n"))
    found = rows(connect(root), "from v_threshold_transfer order by model")
    assert [row["is_own"] for row in found] == [True, False]
    assert found[0]["accuracy_loss"] == 0.3
    assert found[0]["accuracy_loss_p"] == 0.01


def test_a_source_is_told_beside_a_bag_of_words_of_the_same_sources(root: Path) -> None:
    common = {"study_id": "s", "model": "m", "metric": "auroc", "fitted_on": "a | b"}
    cell = {**common, "scorer": "native", "layer": 3}
    put(
        root,
        "evaluations",
        {**cell, "judged_on": "a | b", "estimate": 0.9},
        {**cell, "judged_on": "c", "estimate": 0.4},
        {**common, "scorer": "bag_of_words", "judged_on": "c", "estimate": 0.3},
        {**cell, "judged_on": None, "estimate": 0.1},
    )
    asked = "select judged_on, layer, auroc, bag_of_words, is_same_source from v_source_transfer"
    assert [tuple(row.values()) for row in rows(connect(root), f"{asked} order by all")] == [
        ("a | b", 3, 0.9, None, True),
        ("c", 3, 0.4, 0.3, False),
    ]


def test_layers_and_curves_are_read_from_their_own_figures(root: Path) -> None:
    common = {"study_id": "s", "model": "m", "prompt_set": "one"}
    layer = {**common, "fitted_on": "one", "layer": 2, "metric": "auroc"}
    curve = {**common, "metric": "balanced_accuracy_by_labelled", "fitted_on": "10 prompts"}
    put(
        root,
        "evaluations",
        {**layer, "scorer": "native_cross_validated", "estimate": 0.7},
        {**layer, "scorer": "native", "estimate": 0.9},
        {
            **layer,
            "scorer": "native_minus_bag_of_words",
            "metric": "auroc_difference",
            "estimate": 0.1,
            "p_value": 0.01,
            "p_value_adjusted": 0.02,
        },
        {**common, "scorer": "native", "metric": "auroc", "layer": 2, "estimate": 0.5},
        {**curve, "scorer": "threshold", "component": 10, "estimate": 0.6},
    )
    connection = connect(root)
    (found,) = rows(connection, "from v_layer_tests")
    assert (found["auroc"], found["in_sample"], found["minus_bag_of_words"]) == (0.7, 0.9, 0.1)
    assert (found["p_value"], found["p_value_adjusted"]) == (0.01, 0.02)
    (point,) = rows(connection, "from v_labelled_curve")
    assert (point["method"], point["labelled_count"]) == ("threshold", 10)
    assert point["balanced_accuracy"] == 0.6
