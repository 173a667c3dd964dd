"""Views of stored activations, layers, dimensions and jobs: given rows, expected rows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from axes.warehouse.connection import connect, rows
from tests.rows import put, put_prompts
from tests.sql.marts.given import GIVEN, ask, put_overlapping_sets, put_projections


def test_an_activation_is_joined_to_every_set_of_its_prompt_and_to_its_model(root: Path) -> None:
    put_overlapping_sets(root)
    models = {"model_group": "demo", "dtype": "float32"}
    put(root, "models", {**models, **GIVEN, "layer_count": 5})
    put(root, "models", {**models, "model": "n", "model_id": "n1", "layer_count": 1})
    put(root, "activations", {**GIVEN, "prompt_id": "shared", "layer": 1, "vector": [3, 4]})
    put(root, "activations", {"model": "n", "model_id": "n1", "prompt_id": "b", "norm": 7.0})
    asked = """
        select model, prompt_set, prompt_id, layer, text, is_positive, pair_id, category,
            model_group, dtype, layer_count, depth_fraction, vector, norm
        from v_activations order by model, prompt_set
    """
    common = ("demo", "float32")
    assert ask(root, asked) == [
        ("m", "one", "shared", 1, "text shared", True, "pair", None, *common, 5, 0.25, [3, 4], 0),
        ("m", "two", "shared", 1, "text shared", None, None, "c", *common, 5, 0.25, [3, 4], 0),
        ("n", "two", "b", 0, "text b", True, None, "c", *common, 1, None, [1, 0], 7),
    ]


def test_activations_of_two_layers_sites_poolings_and_templates_stay_apart(root: Path) -> None:
    put_prompts(root, "one", {"a": True})
    put(root, "models", {**GIVEN, "layer_count": 3})
    variants = [{"layer": 2}, {"site": "y"}, {"pooling": "last"}, {"template": "chat"}, {}]
    put(root, "activations", *({**GIVEN, "prompt_id": "a", **variant} for variant in variants))
    asked = "select layer, site, pooling, template from v_activations"
    found = ask(root, asked)
    assert len(found) == len(set(found)) == 5


def test_activations_of_a_prompt_or_model_that_is_unknown_are_left_out(root: Path) -> None:
    put_prompts(root, "one", {"a": True})
    put(root, "models", GIVEN)
    put(root, "activations", {**GIVEN, "prompt_id": "a"}, {**GIVEN, "prompt_id": "nowhere"})
    put(root, "activations", {**GIVEN, "model_id": "another revision", "prompt_id": "a"})
    assert ask(root, "select model_id, prompt_id from v_activations") == [("m1", "a")]


def test_coverage_counts_what_is_there_and_what_is_missing(root: Path) -> None:
    put_prompts(root, "a", {"p": True, "q": False})
    put_prompts(root, "b", {"q": None, "r": None, "s": None})
    put(root, "models", {"model": "m", "model_id": "id", "layer_count": 2})
    common = {"model": "m", "model_id": "id", "site": "resid_post", "template": "raw"}
    put(
        root,
        "activations",
        *(
            {**common, "prompt_id": prompt_id, "layer": layer, "pooling": "mean"}
            for prompt_id, layer in (("p", 0), ("q", 0), ("q", 1), ("r", 1), ("elsewhere", 0))
        ),
    )
    asked = "select prompt_set, layer, prompt_count, row_count, missing_count from v_coverage"
    assert ask(root, f"{asked} order by all") == [
        ("a", 0, 2, 2, 0),
        ("a", 1, 2, 1, 1),
        ("b", 0, 3, 1, 2),
        ("b", 1, 3, 2, 1),
    ]


PLACE = {**GIVEN, "site": "resid_post", "pooling": "mean", "template": "raw"}


def put_layer(root: Path, matrix: np.ndarray, labels: list[bool | None], layer: int = 1) -> None:
    """A set `one` and its activations at a layer, and the model's axis on the first dimension."""
    names = [f"p{index}" for index in range(len(matrix))]
    if layer == 1:
        put_prompts(root, "one", dict(zip(names, labels, strict=True)))
        put(root, "models", {**GIVEN, "layer_count": 3})
    put(
        root,
        "activations",
        *(
            {
                **PLACE,
                "prompt_id": name,
                "layer": layer,
                "vector": vector.tolist(),
                "norm": float(np.linalg.norm(vector)),
            }
            for name, vector in zip(names, matrix, strict=True)
        ),
    )


def test_norms_of_a_layer(root: Path) -> None:
    put_layer(root, np.array([[3.0, 4.0], [0.0, 1.0], [0.0, 3.0]]), [True, False, None])
    asked = """
        select model, prompt_set, layer, depth_fraction, row_count, mean_norm, median_norm,
            largest_norm, norm_deviation, norm_auroc
        from v_layer_norms
    """
    assert ask(root, asked) == [("m", "one", 1, 0.5, 3, 3.0, 3.0, 5.0, 2.0, 1.0)]


def test_the_variance_of_a_layer_is_numpys(root: Path) -> None:
    random = np.random.default_rng(0)
    labels = [None if index < 5 else index % 3 == 0 for index in range(40)]
    matrix = random.standard_normal((40, 6)).astype(np.float32)
    matrix[:, 0] += 9
    put_layer(root, matrix, labels)
    (found,) = rows(connect(root), "from v_layer_variance")
    wide = matrix.astype(np.float64)
    mean, total = wide.mean(axis=0), wide.var(axis=0).sum()
    assert found["total_variance"] == pytest.approx(total, abs=1e-9)
    share = (mean**2).sum() / (wide**2).sum(axis=1).mean()
    assert found["mean_share"] == pytest.approx(share, abs=1e-9)
    labelled, classes = wide[5:], np.array(labels[5:], dtype=bool)
    means = np.where(
        classes[:, None], labelled[classes].mean(axis=0), labelled[~classes].mean(axis=0)
    )
    gap = np.linalg.norm(labelled[classes].mean(axis=0) - labelled[~classes].mean(axis=0))
    assert found["class_gap"] == pytest.approx(gap, abs=1e-9)
    between = means.var(axis=0).sum() / labelled.var(axis=0).sum()
    assert found["class_share"] == pytest.approx(between, abs=1e-9)


def test_a_layer_with_one_class_has_no_class_variance(root: Path) -> None:
    put_layer(root, np.array([[1.0, 0.0], [3.0, 0.0]]), [True, None])
    asked = "select total_variance, mean_share, class_gap, class_share from v_layer_variance"
    assert ask(root, asked) == [(1.0, 0.8, None, None)]


def test_a_profile_brings_norms_variance_and_the_own_direction_together(root: Path) -> None:
    matrix = np.array([[2.0, 0.0], [-2.0, 0.0], [1.0, 1.0], [-1.0, -1.0]])
    put_layer(root, matrix, [True, False, True, False])
    put_layer(root, matrix, [], layer=2)
    axis = {"layer": 1, "site": "resid_post", "pooling": "mean", "template": "raw"}
    axis |= {"kind": "native", "space_model_id": "m1", "prompt_set": "one"}
    put(root, "axes", {**axis, "axis_id": "x"}, {**axis, "axis_id": "z", "kind": "imported"})
    put_projections(root, "x", {f"p{row}": matrix[row, 0] for row in range(4)}, layer=1)
    asked = """
        select layer, native_axis_id, row_count, total_variance, mean_share, class_gap,
            round(class_share, 9), round(direction_share, 9), native_auroc
        from v_layer_profiles order by layer
    """
    gap = pytest.approx(np.hypot(3, 1))
    assert ask(root, asked) == [
        (1, "x", 4, 3.0, 0.0, gap, round(2.5 / 3, 9), round(2.5 / 3, 9), 1.0),
        (2, None, 4, 3.0, 0.0, gap, round(2.5 / 3, 9), None, None),
    ]


def test_dimensions_that_stand_out_are_named_with_their_share(root: Path) -> None:
    put_layer(
        root, np.array([[1.0, 100.0, 1.0, -10.0, 1.0], [-1.0, 100.0, 1.0, 10.0, 1.0]]), [None] * 2
    )
    put_layer(root, np.ones((2, 3)), [], layer=2)
    asked = """
        select layer, dimension, place, mean, root_mean_square, ratio, round(share, 6)
        from v_outlier_dimensions order by place
    """
    assert ask(root, asked) == [
        (1, 1, 1, 100.0, 100.0, 100.0, round(10_000 / 10_103, 6)),
        (1, 3, 2, 0.0, 10.0, 10.0, round(100 / 10_103, 6)),
    ]


def test_jobs_are_timed_and_added_up_in_the_order_of_starting(root: Path) -> None:
    start = datetime(2025, 1, 1, tzinfo=UTC)
    times = {"started_at": start, "finished_at": start + timedelta(seconds=8)}
    later = {"started_at": start + timedelta(hours=1), "finished_at": None}
    put(
        root,
        "runs",
        {"run_id": "b", "parameters": "{}", "rows": 3, "status": "running", **later},
        {
            "run_id": "a",
            "parameters": '{"model": "gpt2"}',
            "rows": 4,
            "tokens": 100,
            "skipped": [{"prompt_id": "p", "reason": "long"}],
            **times,
        },
    )
    asked = """
        select run_id, model, rows, tokens, skipped_count, seconds, rows_per_second,
            total_seconds, total_tokens
        from v_runs order by started_at
    """
    assert ask(root, asked) == [
        ("a", "gpt2", 4, 100, 1, 8.0, 0.5, 8.0, 100),
        ("b", None, 3, 0, 0, None, None, 8.0, 100),
    ]
