"""Views of projections, their AUROC, curves and agreement: given rows, expected rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import gaussian_kde, spearmanr
from sklearn.metrics import roc_auc_score

from axes.warehouse.connection import connect, rows
from tests.rows import put, put_prompts
from tests.sql.marts.given import GIVEN, ask, put_overlapping_sets, put_projections


def test_a_projection_of_a_prompt_its_axis_was_fitted_on_is_flagged_in_any_set(root: Path) -> None:
    put_overlapping_sets(root)
    axis = {"kind": "native", "method": "mean_diff", "template": "chat"}
    put(root, "axes", {**axis, "axis_id": "fit", "name": "native/m", "prompt_set": "one"})
    put(root, "axes", {**axis, "axis_id": "far", "name": "far/m", "prompt_set": "elsewhere"})
    for axis_id, projection in (("fit", 1.5), ("far", -2.5)):
        put_projections(root, axis_id, {"shared": projection}, layer=3)
    asked = """
        select axis_id, axis_name, kind, method, model, prompt_set, layer, template, label,
            projection, is_positive, is_in_sample
        from v_projections order by axis_id desc, prompt_set
    """
    fit = ("fit", "native/m", "native", "mean_diff", "m")
    far = ("far", "far/m", "native", "mean_diff", "m")
    assert ask(root, asked) == [
        (*fit, "one", 3, "chat", "unsafe", 1.5, True, True),
        (*fit, "two", 3, "chat", None, 1.5, None, True),
        (*far, "one", 3, "chat", "unsafe", -2.5, True, False),
        (*far, "two", 3, "chat", None, -2.5, None, False),
    ]


def test_auroc_is_given_for_each_axis_model_and_labelled_set(root: Path) -> None:
    put_prompts(root, "one", {"a": True, "b": True, "c": False, "d": False, "e": None})
    put_prompts(root, "two", {"a": True, "c": False})
    put_prompts(root, "positives", {"a": True, "b": True})
    put_prompts(root, "unlabelled", {"a": None})
    put_prompts(root, "unseen", {"b": True, "d": False})
    axis = {"name": "name", "kind": "universal", "method": "svd", "prompt_set": "two"}
    put(root, "axes", {**axis, "axis_id": "x"}, {**axis, "axis_id": "y"})
    scores = {
        ("x", "m"): {"a": 3.0, "b": 1.0, "c": 1.0, "d": 0.0, "e": 99.0},
        ("x", "n"): {"a": 0.0, "b": 9.0, "c": 1.0, "d": 2.0, "e": 99.0},
        ("y", "m"): {"a": -1.0, "b": -1.0, "c": 1.0, "d": 1.0, "e": 99.0},
    }
    for (axis_id, model), by_prompt in scores.items():
        put_projections(root, axis_id, by_prompt, model, layer=2)
    asked = """
        select axis_id, model_id, prompt_set, auroc, positive_count, negative_count, is_in_sample
        from v_auroc order by all
    """
    assert ask(root, asked) == [
        ("x", "m1", "one", 0.875, 2, 2, True),
        ("x", "m1", "positives", None, 2, 0, True),
        ("x", "m1", "two", 1.0, 1, 1, True),
        ("x", "m1", "unseen", 1.0, 1, 1, False),
        ("x", "n1", "one", 0.5, 2, 2, True),
        ("x", "n1", "positives", None, 2, 0, True),
        ("x", "n1", "two", 0.0, 1, 1, True),
        ("x", "n1", "unseen", 1.0, 1, 1, False),
        ("y", "m1", "one", 0.0, 2, 2, True),
        ("y", "m1", "positives", None, 2, 0, True),
        ("y", "m1", "two", 0.0, 1, 1, True),
        ("y", "m1", "unseen", 0.0, 1, 1, False),
    ]
    described = "select distinct axis_name, kind, method, layer from v_auroc"
    assert ask(root, described) == [("name", "universal", "svd", 2)]


def test_cosines_are_of_ordered_pairs_of_different_axes_in_one_space(root: Path) -> None:
    space = {"space_model": "r", "space_model_id": "r1", "layer": 4}
    put(
        root,
        "axes",
        {**space, "axis_id": "a", "kind": "native", "fitted_model": "m", "vector": [1, 0]},
        {**space, "axis_id": "b", "kind": "aligned", "fitted_model": "n", "vector": [-0.6, 0.8]},
        {**space, "axis_id": "other layer", "layer": 5},
        {**space, "axis_id": "other site", "site": "resid_mid"},
        {**space, "axis_id": "other revision", "space_model_id": "r2"},
    )
    asked = """
        select axis_id, other_axis_id, kind, other_kind, model, other_model, space_model, layer,
            round(cosine, 6)
        from v_axis_cosines order by all
    """
    assert ask(root, asked) == [
        ("a", "b", "native", "aligned", "m", "n", "r", 4, -0.6),
        ("b", "a", "aligned", "native", "n", "m", "r", 4, -0.6),
    ]


@pytest.mark.parametrize("view", ["v_activations", "v_projections"])
def test_a_prompt_of_no_set_is_in_no_mart(root: Path, view: str) -> None:
    put(root, "models", GIVEN)
    put(root, "axes", {"axis_id": "x"})
    put(root, "activations", {**GIVEN, "prompt_id": "orphan"})
    put(root, "projections", {**GIVEN, "prompt_id": "orphan", "axis_id": "x"})
    assert ask(root, f"from {view}") == []


def put_axis(root: Path, values: dict[str, float], labels: dict[str, bool | None]) -> None:
    """A set of prompts, an axis and its projections."""
    put_prompts(root, "set", labels)
    put(root, "axes", {"axis_id": "axis", "name": "native/m", "kind": "native"})
    put_projections(root, "axis", values)


def test_a_curve_falls_through_the_thresholds_and_ties_are_one_step(root):
    put_axis(
        root,
        {"a": 3.0, "b": 2.0, "c": 2.0, "d": 1.0, "e": 9.0},
        {"a": True, "b": True, "c": False, "d": False, "e": None},
    )
    asked = """
        select threshold, false_positive_rate, true_positive_rate
        from v_roc order by threshold desc nulls first
    """
    assert ask(root, asked) == [
        (None, 0.0, 0.0),
        (3.0, 0.0, 0.5),
        (2.0, 0.5, 1.0),
        (1.0, 1.0, 1.0),
    ]


def test_the_area_below_the_curve_is_the_auroc(root):
    random = np.random.default_rng(0)
    labels = {f"p{row}": bool(row % 3) for row in range(200)}
    # Rounded, so that there are ties within a class and across.
    values = {name: round(random.normal(label), 1) for name, label in labels.items()}
    put_axis(root, values, dict(labels))
    connection = connect(root)
    curve = rows(connection, "from v_roc order by threshold desc nulls first")
    area = np.trapezoid(
        [row["true_positive_rate"] for row in curve], [row["false_positive_rate"] for row in curve]
    )
    (judged,) = rows(connection, "from v_auroc")
    assert area == pytest.approx(judged["auroc"], abs=1e-12)


def test_a_curve_of_one_class_has_no_rates_of_the_other(root):
    put_axis(root, {"a": 1.0, "b": 2.0}, {"a": True, "b": True})
    found = rows(connect(root), "from v_roc")
    assert {row["false_positive_rate"] for row in found} == {None}
    assert max(row["true_positive_rate"] for row in found) == 1


def test_a_density_is_that_of_a_gaussian_kernel_and_holds_the_whole_class(root):
    random = np.random.default_rng(1)
    labels = {f"p{row}": row % 2 == 0 for row in range(120)}
    values = {name: float(random.normal(2 * label, 1 + label)) for name, label in labels.items()}
    put_axis(root, values, dict(labels))
    found = rows(connect(root), "from v_projection_densities order by is_positive, projection")
    assert len(found) == 2 * 64
    for label, is_positive in (("unsafe", True), ("safe", False)):
        held = [row for row in found if row["is_positive"] == is_positive]
        own = np.array([values[name] for name in labels if labels[name] == is_positive])
        spread = np.subtract(*np.quantile(own, [0.75, 0.25])) / 1.34
        width = 0.9 * min(own.std(ddof=1), spread) * len(own) ** -0.2
        kernel = gaussian_kde(own, bw_method=width / own.std(ddof=1))
        grid = [row["projection"] for row in held]
        density = [row["density"] for row in held]
        assert density == pytest.approx(kernel(grid), rel=1e-9)
        assert np.trapezoid(density, grid) == pytest.approx(1, abs=0.01)
        assert {row["label"] for row in held} == {label} and held[0]["row_count"] == 60
    grids = [[row["projection"] for row in found if row["is_positive"] == one] for one in (0, 1)]
    assert grids[0] == grids[1]


def test_a_class_of_one_value_has_no_density(root):
    values = {"a": 1.0, "b": 1.0, "c": 0.0, "d": 2.0}
    put_axis(root, values, {"a": True, "b": True, "c": False, "d": False})
    found = rows(connect(root), "select distinct is_positive from v_projection_densities")
    assert found == [{"is_positive": False}]


def test_a_calibration_is_applied_to_its_own_axis_and_model_only(root: Path) -> None:
    put_prompts(root, "one", {"p": True, "q": False})
    put(root, "axes", {"axis_id": "x"}, {"axis_id": "y"})
    for model, axis_id in (("m", "x"), ("n", "x"), ("m", "y")):
        put_projections(root, axis_id, {"p": 1.0, "q": 0.0}, model)
    put(
        root,
        "calibrations",
        {
            "calibration_id": "c",
            "model": "m",
            "model_id": "m1",
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
    assert ask(root, asked) == [
        ("m", "x", "p", 0.5, True, False),
        ("m", "x", "q", 0.5, False, True),
    ]


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
            scaled = [factor * value for value in values]
            put_projections(root, axis, dict(zip(labels, scaled, strict=True)), model)


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


def test_the_threshold_is_halfway_on_the_axis_own_prompts_and_judges_every_set(root: Path) -> None:
    put_prompts(root, "own", {"a": True, "b": True, "c": False, "d": False})
    put_prompts(root, "other", {"e": True, "f": False, "g": None, "h": True})
    put(root, "axes", {"axis_id": "x", "prompt_set": "own"}, {"axis_id": "y", "prompt_set": "gone"})
    values = {"a": 1.0, "b": 5.0, "c": 2.0, "d": -2.0, "e": 1.0, "f": 1.0, "g": 9.0, "h": 9.0}
    for axis in ("x", "y"):
        put_projections(root, axis, values)
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
    names = [name for _, name in places]
    put_projections(root, "x", dict(zip(names, score, strict=True)))
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
