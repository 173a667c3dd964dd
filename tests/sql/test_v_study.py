"""The study table: evaluations turned into a row per study, model and prompt set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from axes.warehouse.connection import connect, rows
from tests.rows import Row, put


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


def metric(name: str, value: float, **columns: Any) -> Row:
    return {"study_id": "s", "model": "m", "metric": name, "estimate": value, **columns}


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
    )
    asked = "select * from v_study where study_id = 's' order by model, prompt_set"
    found = rows(connect(root), asked)
    alignment = {
        "cosine_universal": 0.9,
        "cosine_reference": 0.8,
        "alignment_r2": 0.7,
        "ridge_lambda": 100.0,
    }
    nothing = dict.fromkeys(found[0])
    common = {**nothing, "study_id": "s", "layer": 6}
    assert found == [
        {
            **common,
            **alignment,
            "model": "m",
            "prompt_set": "one",
            "is_in_sample": True,
            "native": 0.75,
            "native_lower": 0.625,
            "native_upper": 0.875,
            "universal": 0.5,
            "universal_lower": 0.375,
            "universal_upper": 0.625,
            "leave_one_out": 0.375,
            "native_cross_validated": 0.625,
            "null_in_sample": 0.375,
            "bag_of_words": 0.6875,
            "prompt_length": 0.5625,
        },
        {
            **common,
            **alignment,
            "model": "m",
            "prompt_set": "two",
            "is_in_sample": False,
            "native": 0.875,
            "native_lower": 0.75,
            "native_upper": 1.0,
        },
        {
            **common,
            "model": "n",
            "prompt_set": "two",
            "is_in_sample": False,
            "native": 0.125,
            "native_lower": 0.0,
            "native_upper": 0.25,
        },
    ]
    other = rows(connect(root), "from v_study where study_id = 'other study'")
    assert [(row["native"], row["bag_of_words"], row["ridge_lambda"]) for row in other] == [
        (0.0, None, None)
    ]
