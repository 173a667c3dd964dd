"""The marts that charts are drawn from: ROC curves and densities of projections."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import gaussian_kde

from axes.warehouse.connection import connect, rows
from tests.rows import put, put_prompts


def put_projections(root: Path, values: dict[str, float], labels: dict[str, bool | None]) -> None:
    put_prompts(root, "set", labels)
    put(root, "axes", {"axis_id": "axis", "name": "native/m", "kind": "native"})
    projected = {"axis_id": "axis", "model": "m", "model_id": "m1"}
    put(
        root,
        "projections",
        *({**projected, "prompt_id": prompt, "projection": at} for prompt, at in values.items()),
    )


def test_a_curve_falls_through_the_thresholds_and_ties_are_one_step(root):
    put_projections(
        root,
        {"a": 3.0, "b": 2.0, "c": 2.0, "d": 1.0, "e": 9.0},
        {"a": True, "b": True, "c": False, "d": False, "e": None},
    )
    found = rows(
        connect(root),
        "select threshold, false_positive_rate as x, true_positive_rate as y from v_roc "
        "order by threshold desc nulls first",
    )
    assert [tuple(row.values()) for row in found] == [
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
    put_projections(root, values, dict(labels))
    connection = connect(root)
    curve = rows(connection, "from v_roc order by threshold desc nulls first")
    area = np.trapezoid(
        [row["true_positive_rate"] for row in curve], [row["false_positive_rate"] for row in curve]
    )
    (judged,) = rows(connection, "from v_auroc")
    assert area == pytest.approx(judged["auroc"], abs=1e-12)


def test_a_curve_of_one_class_has_no_rates_of_the_other(root):
    put_projections(root, {"a": 1.0, "b": 2.0}, {"a": True, "b": True})
    found = rows(connect(root), "from v_roc")
    assert {row["false_positive_rate"] for row in found} == {None}
    assert max(row["true_positive_rate"] for row in found) == 1


def test_a_density_is_that_of_a_gaussian_kernel_and_holds_the_whole_class(root):
    random = np.random.default_rng(1)
    labels = {f"p{row}": row % 2 == 0 for row in range(120)}
    values = {name: float(random.normal(2 * label, 1 + label)) for name, label in labels.items()}
    put_projections(root, values, dict(labels))
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
    put_projections(root, values, {"a": True, "b": True, "c": False, "d": False})
    found = rows(connect(root), "select distinct is_positive from v_projection_densities")
    assert found == [{"is_positive": False}]
