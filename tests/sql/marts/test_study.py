"""Views of studies: the study table, thresholds, sources and layers; given rows, expected rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from axes.warehouse.connection import connect, rows
from tests.rows import Row, put


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
def test_the_verdict_on_thresholds_needs_evidence_either_way(root, there, back, verdict):
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


def test_a_source_is_told_beside_a_word_pairs_of_the_same_sources(root: Path) -> None:
    common = {"study_id": "s", "model": "m", "metric": "auroc", "fitted_on": "a | b"}
    cell = {**common, "scorer": "native", "layer": 3}
    put(
        root,
        "evaluations",
        {**cell, "judged_on": "a | b", "estimate": 0.9},
        {**cell, "judged_on": "c", "estimate": 0.4},
        {**common, "scorer": "word_pairs", "judged_on": "c", "estimate": 0.3},
        {**cell, "judged_on": None, "estimate": 0.1},
    )
    asked = "select judged_on, layer, auroc, word_pairs, is_same_source from v_source_transfer"
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
            "scorer": "native_minus_word_pairs",
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
    assert (found["auroc"], found["in_sample"], found["minus_word_pairs"]) == (0.7, 0.9, 0.1)
    assert (found["p_value"], found["p_value_adjusted"]) == (0.01, 0.02)
    (point,) = rows(connection, "from v_labelled_curve")
    assert (point["method"], point["labelled_count"]) == ("threshold", 10)
    assert point["balanced_accuracy"] == 0.6


def figures(study: str, model: str | None, prompt_set: str | None, **by_scorer: float) -> list[Row]:
    """Evaluations with an interval of 0.1 to each side; the layer is 6."""
    place = {"study_id": study, "model": model, "prompt_set": prompt_set, "metric": "auroc"}
    return [
        {
            **place,
            "scorer": scorer,
            "layer": 6,
            "estimate": value,
            "lower": value - 0.125,
            "upper": value + 0.125,
            "is_in_sample": prompt_set == "one",
        }
        for scorer, value in by_scorer.items()
    ]


def native(value: float) -> Row:
    return {"native": value, "native_lower": value - 0.125, "native_upper": value + 0.125}


def metric(name: str, value: float, **columns: Any) -> Row:
    return {"study_id": "s", "model": "m", "metric": name, "estimate": value, **columns}


def rates(prompt_set: str, scorer: str, value: float, negative_count: int = 100) -> list[Row]:
    found = {"prompt_set": prompt_set, "scorer": scorer, "negative_count": negative_count}
    interval = {"lower": value - 0.125, "upper": 1.0}
    return [metric("tpr_at_fpr_0.01", value, **found, **interval)]


def test_too_few_negative_prompts_for_a_rate_of_one_percent_are_a_warning(root: Path) -> None:
    put(root, "evaluations", *rates("few", "universal", 0.5, 99), *rates("many", "native", 0.5))
    found = rows(connect(root), "from v_study_warnings where warning = 'few_negatives'")
    assert [(row["prompt_set"], row["metric_value"]) for row in found] == [("few", 99)]
    assert found[0]["text"].startswith("few has 99 negative prompts, fewer than 100")


def test_the_study_table_has_a_row_per_model_and_set_with_a_column_per_scorer(root: Path) -> None:
    put(
        root,
        "evaluations",
        *figures("s", "m", "one", native=0.75, universal=0.5, shuffled_labels=0.25),
        *figures("s", "m", "one", native_cross_validated=0.625, leave_one_out=0.375),
        *figures("s", "m", "two", native=0.875),
        *figures("s", "n", "two", native=0.125),
        *figures("other study", "m", "one", native=0.0),
        *figures("s", None, "one", bag_of_words=0.6875, prompt_length=0.5625),
        metric("cosine_universal", 0.9),
        metric("cosine_reference", 0.8),
        metric("r2_held_out", 0.7),
        metric("ridge_lambda", 100.0),
        metric("singular_value", 55.0, model=None, component=0),
        *rates("two", "universal", 0.25),
        *rates("one", "universal", 0.75),
        *rates("one", "universal_cross_validated", 0.5),
    )
    asked = "select * from v_study where study_id = 's' order by model, prompt_set"
    found = rows(connect(root), asked)
    alignment = {
        "cosine_universal": 0.9,
        "cosine_reference": 0.8,
        "alignment_r2": 0.7,
        "ridge_lambda": 100.0,
    }
    areas = {"native": 0.75, "universal": 0.5, "leave_one_out": 0.375}
    areas |= {"native_lower": 0.625, "native_upper": 0.875}
    areas |= {"universal_lower": 0.375, "universal_upper": 0.625}
    others = {"native_cross_validated": 0.625, "null_in_sample": 0.375}
    others |= {"bag_of_words": 0.6875, "prompt_length": 0.5625}
    others |= {"best_baseline": "bag_of_words", "best_baseline_auroc": 0.6875}
    held_out, other = (
        {
            "universal_tpr_at_1_percent": at,
            "universal_tpr_at_1_percent_lower": at - 0.125,
            "universal_tpr_at_1_percent_upper": 1.0,
        }
        for at in (0.5, 0.25)
    )
    others |= held_out
    expected = [
        {"model": "m", "prompt_set": "one", "is_in_sample": True, **areas, **others, **alignment},
        {"model": "m", "prompt_set": "two", **native(0.875), **alignment, **other},
        {"model": "n", "prompt_set": "two", **native(0.125)},
    ]
    common = {**dict.fromkeys(found[0]), "study_id": "s", "layer": 6, "is_in_sample": False}
    assert found == [{**common, **row} for row in expected]
    other = rows(connect(root), "from v_study where study_id = 'other study'")
    assert [(row["native"], row["bag_of_words"], row["ridge_lambda"]) for row in other] == [
        (0.0, None, None)
    ]
