"""The marts that compare projections: given rows, expected rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from axes.warehouse.connection import connect, rows
from tests.rows import put, put_prompts
from tests.sql.test_marts import ask, put_generation

MODELS = ("m", "n")


def put_study(root: Path, projections: dict[str, list[float]], labels: dict[str, bool]) -> None:
    """A universal axis `u` of models m and n; model -> its projections, twice that on native."""
    put_prompts(root, "one", dict(labels))
    fitted = {"prompt_set": "one"}
    for model in MODELS:
        other = "n" if model == "m" else "m"
        put(
            root,
            "axes",
            {**fitted, "axis_id": f"native {model}", "kind": "native", "fitted_model": model},
            {
                **fitted,
                "axis_id": f"aligned {model}",
                "kind": "aligned",
                "fitted_model": model,
                "source_axis_ids": [f"native {model}"],
            },
            {
                **fitted,
                "axis_id": f"without {model}",
                "kind": "leave_one_out",
                "held_out_model": model,
                "source_axis_ids": [f"aligned {other}"],
            },
        )
    sources = ["aligned m", "aligned n"]
    put(root, "axes", {**fitted, "axis_id": "u", "kind": "universal", "source_axis_ids": sources})
    # Of another study, with other sources: not to be mixed in.
    other_study = {"held_out_model": "m", "source_axis_ids": ["aligned x"]}
    put(root, "axes", {**fitted, "axis_id": "w", "kind": "leave_one_out", **other_study})
    for model, values in projections.items():
        for axis, factor in (("u", 1), (f"native {model}", 2), (f"without {model}", -1)):
            put(
                root,
                "projections",
                *(
                    {
                        "axis_id": axis,
                        "model": model,
                        "model_id": f"{model}1",
                        "prompt_id": name,
                        "projection": factor * value,
                    }
                    for name, value in zip(labels, values, strict=True)
                ),
            )


# v_projections_wide


def test_the_projections_of_one_study_stand_side_by_side(root: Path) -> None:
    put_study(root, {"m": [1.0, -1.0], "n": [3.0, 0.0]}, {"a": True, "b": False})
    put(root, "projections", {"axis_id": "w", "model": "m", "model_id": "m1", "prompt_id": "a"})
    asked = """
        select universal_axis_id, native_axis_id, leave_one_out_axis_id, model, prompt_id,
            universal, native, leave_one_out, is_positive
        from v_projections_wide order by model, prompt_id
    """
    assert ask(root, asked) == [
        ("u", "native m", "without m", "m", "a", 1.0, 2.0, -1.0, True),
        ("u", "native m", "without m", "m", "b", -1.0, -2.0, 1.0, False),
        ("u", "native n", "without n", "n", "a", 3.0, 6.0, -3.0, True),
        ("u", "native n", "without n", "n", "b", 0.0, 0.0, 0.0, False),
    ]


# v_model_agreement


def test_agreement_is_scipys_spearman_over_all_prompts_and_within_each_class(root: Path) -> None:
    random = np.random.default_rng(0)
    m = random.integers(0, 9, 30).astype(float)
    n = m + random.integers(-4, 4, 30)
    labels = {f"p{index}": bool(random.random() < 0.5) for index in range(30)}
    put_study(root, {"m": m.tolist(), "n": n.tolist()}, labels)
    found = rows(connect(root), "from v_model_agreement order by kind, model")
    assert [(row["kind"], row["model"], row["other_model"]) for row in found] == [
        (kind, *pair)
        for kind in ("leave_one_out", "native", "universal")
        for pair in (("m", "n"), ("n", "m"))
    ]
    positive = np.array(list(labels.values()))
    for row in found:
        assert row["prompt_count"] == 30
        assert row["spearman"] == pytest.approx(spearmanr(m, n).statistic, abs=1e-9)
        for name, mine in (("positive", positive), ("negative", ~positive)):
            wanted = spearmanr(m[mine], n[mine]).statistic
            assert row[f"spearman_{name}"] == pytest.approx(wanted, abs=1e-9)


# v_misclassified


def test_the_threshold_is_halfway_on_the_axis_own_prompts_and_judges_every_set(root: Path) -> None:
    put_prompts(root, "own", {"a": True, "b": True, "c": False, "d": False})
    put_prompts(root, "other", {"e": True, "f": False, "g": None, "h": True})
    put(root, "axes", {"axis_id": "x", "prompt_set": "own"}, {"axis_id": "y", "prompt_set": "gone"})
    values = {"a": 1.0, "b": 5.0, "c": 2.0, "d": -2.0, "e": 1.0, "f": 1.0, "g": 9.0, "h": 9.0}
    common = {"model": "m", "model_id": "m1"}
    put(
        root,
        "projections",
        *(
            {**common, "axis_id": axis, "prompt_id": name, "projection": value}
            for axis in ("x", "y")
            for name, value in values.items()
        ),
    )
    asked = """
        select axis_id, prompt_set, prompt_id, error, projection, threshold, round(margin, 6),
            is_in_sample
        from v_misclassified order by all
    """
    deviation = 8**0.5
    assert ask(root, asked) == [
        ("x", "other", "e", "false negative", 1.0, 1.5, round(0.5 / deviation, 6), False),
        ("x", "own", "a", "false negative", 1.0, 1.5, round(0.5 / deviation, 6), True),
        ("x", "own", "c", "false positive", 2.0, 1.5, round(0.5 / deviation, 6), True),
    ]


# v_category_auroc


def test_the_auroc_of_a_category_within_it_and_against_every_negative(root: Path) -> None:
    random = np.random.default_rng(1)
    truth, score, places = [], [], []
    for category in ("drugs", "theft", None):
        labels = {f"{category}{row}": bool(random.random() < 0.5) for row in range(20)}
        if category is None:
            labels = dict.fromkeys(labels, True)
        put_prompts(root, "one", labels, category=category)
        truth += labels.values()
        score += random.integers(0, 6, 20).astype(float).tolist()
        places += [(category, name) for name in labels]
    put(root, "axes", {"axis_id": "x"})
    common = {"axis_id": "x", "model": "m", "model_id": "m1"}
    put(
        root,
        "projections",
        *(
            {**common, "prompt_id": name, "projection": value}
            for (_, name), value in zip(places, score, strict=True)
        ),
    )
    found = {row["category"]: row for row in rows(connect(root), "from v_category_auroc")}
    assert set(found) == {"drugs", "theft", None}
    truth, score = np.array(truth), np.array(score)
    for category, row in found.items():
        mine = np.array([place == category for place, _ in places])
        if category is None:
            assert row["auroc"] is None
        else:
            wanted = roc_auc_score(truth[mine], score[mine])
            assert row["auroc"] == pytest.approx(wanted, abs=1e-9)
        kept = ~truth | mine
        wanted = roc_auc_score(truth[kept], score[kept])
        assert row["auroc_against_all"] == pytest.approx(wanted, abs=1e-9)
        assert row["positive_count"] + row["negative_count"] == 20


# v_generation_drift


def test_a_completion_is_summed_up_by_slope_highest_token_and_largest_rise(root: Path) -> None:
    put_prompts(root, "one", {"a": True, "b": False})
    put(root, "axes", {"axis_id": "x", "kind": "universal"})
    put_generation(root, "g", "a", [0.0, -4.0, 1.0, 2.0, 2.0])
    put_generation(root, "h", "b", [7.0])
    asked = """
        select generation_id, prompt_id, token_count, first_projection, last_projection,
            mean_projection, highest_projection, highest_step, highest_token, largest_rise,
            rising_token, round(drift_slope, 9), round(drift_correlation, 6), is_positive
        from v_generation_drift order by generation_id
    """
    steps, projections = np.arange(5), [0.0, -4.0, 1.0, 2.0, 2.0]
    slope = round(float(np.polyfit(steps, projections, 1)[0]), 9)
    correlation = round(float(np.corrcoef(steps, projections)[0, 1]), 6)
    assert ask(root, asked) == [
        ("g", "a", 5, 0.0, 2.0, 0.2, 2.0, 3, "t3", 5.0, "t2", slope, correlation, True),
        ("h", "b", 1, 7.0, 7.0, 7.0, 7.0, 0, "t0", None, None, None, None, False),
    ]
