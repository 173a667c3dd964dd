"""The marts of labels, layers, dimensions and jobs: given rows, expected rows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from axes.warehouse.connection import connect, rows
from tests.rows import put, put_prompts
from tests.sql.test_marts import GIVEN, ask

PLACE = {**GIVEN, "site": "resid_post", "pooling": "mean", "template": "raw"}


# v_prompt_labels


def test_what_every_labeler_says_of_a_prompt_stands_in_one_row(root: Path) -> None:
    put_prompts(root, "one", {"a": True, "b": False, "c": None})
    label = {"prompt_set": "one", "label": "refused", "labeler": "refusal"}
    put(root, "labels", {**label, "prompt_id": "a", "is_positive": True})
    put(root, "labels", {**label, "prompt_id": "b", "is_positive": True})
    put(root, "labels", {**label, "prompt_id": "c", "generation_id": "of a completion"})
    asked = """
        select prompt_id, labels['dataset'], labels['refusal'], opinions['refusal'],
            labeler_count, positive_votes, negative_votes, is_contested
        from v_prompt_labels order by all
    """
    assert ask(root, asked) == [
        ("a", "unsafe", "refused", True, 2, 2, 0, False),
        ("b", "safe", "refused", True, 2, 1, 1, True),
        ("c", None, None, None, 0, 0, 0, None),
    ]


# v_layer_norms, v_layer_variance, v_layer_profiles


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
    projected = {**GIVEN, "axis_id": "x", "layer": 1}
    put(
        root,
        "projections",
        *({**projected, "prompt_id": f"p{row}", "projection": matrix[row, 0]} for row in range(4)),
    )
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


# v_outlier_dimensions


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


# v_runs


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
