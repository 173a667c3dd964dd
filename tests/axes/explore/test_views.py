"""Points are those of `projections`, cells those of `v_auroc`; what is hidden stays hidden."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from axes.explore import views
from axes.explore.hiding import Hidden
from axes.explore.queries import completion
from axes.explore.views import differences, layers, scatter
from axes.warehouse.connection import Connection, connect, rows
from axes.warehouse.errors import QueryError
from axes.warehouse.storage.layout import init_root
from tests.explored import FORBIDDEN, LAYER, MARKUP, UNIVERSAL, prompt_text
from tests.rows import put


@pytest.fixture(scope="module")
def connection(explored: Path) -> Connection:
    return connect(explored)


ON_ALPHA = {"x": UNIVERSAL, "x_model": "id-alpha"}
ON_BETA = {"y": "native-beta", "y_model": "id-beta"}


def test_points_are_the_projections_of_the_two_axes(connection: Connection) -> None:
    found = scatter(connection, Hidden(), prompt_set="marked", **ON_ALPHA, **ON_BETA)
    stored = {
        axis: {
            row["prompt_id"]: row["projection"]
            for row in rows(
                connection,
                "from projections where axis_id = $axis and model_id = $model",
                {"axis": found[axis], "model": found[f"{axis}_model"]},
            )
        }
        for axis in ("x", "y")
    }
    points = found["points"]
    assert points[0]["total"] == len(points) == 60
    for axis in ("x", "y"):
        assert {one["prompt_id"]: one[axis] for one in points} == stored[axis]
    values = np.array([[one["x"], one["y"]] for one in points]).T
    assert points[0]["correlation"] == pytest.approx(np.corrcoef(values)[0, 1])
    assert {one["label"] for one in points} == {"safe", "unsafe"}


def test_texts_of_positive_points_are_hidden(connection: Connection) -> None:
    hidden = Hidden()
    points = scatter(connection, hidden, prompt_set="marked")["points"]
    assert FORBIDDEN not in str(points)
    by_id = {one["prompt_id"]: one["text"] for one in points}
    assert by_id["p0001"] == prompt_text(1) and MARKUP in by_id["p0001"]
    assert hidden.get(by_id["p0000"]["hidden"]) == prompt_text(0)


def test_the_axes_default_to_the_shared_one_of_two_models(connection: Connection) -> None:
    found = scatter(connection, Hidden(), prompt_set="marked")
    assert (found["x"], found["x_model"]) == (UNIVERSAL, "id-alpha")
    assert (found["y"], found["y_model"]) == (UNIVERSAL, "id-beta")
    offered = {(one["axis_id"], one["model_id"]) for one in found["readouts"]}
    pairs = rows(connection, "select distinct axis_id, model_id from projections")
    assert offered == {(row["axis_id"], row["model_id"]) for row in pairs}
    assert len(offered) == len(found["readouts"])
    given = scatter(connection, Hidden(), prompt_set="marked", x="native-alpha", x_model="id-alpha")
    assert (given["x"], given["y"]) == ("native-alpha", UNIVERSAL)


def test_a_projection_without_a_number_is_no_point(explored: Path, tmp_path: Path) -> None:
    root = shutil.copytree(explored, tmp_path / "lake")
    same = {"model": "alpha", "model_id": "id-alpha", "axis_id": "odd", "run_id": "run"}
    values = {"p0000": float("nan"), "p0001": 1.0, "p0002": 1.0, "p0000a": 1.0, "q0": float("inf")}
    put(
        root, "projections", *({**same, "prompt_id": k, "projection": v} for k, v in values.items())
    )
    put(root, "axes", {"axis_id": "odd", "name": "odd", "kind": "native", "run_id": "run"})
    on_odd = {"x": "odd", "x_model": "id-alpha", "y": "odd", "y_model": "id-alpha"}
    put(root, "prompts", {"prompt_set": "marked", "prompt_id": "p0000a", "text": "a" * 400})
    found = scatter(connect(root), Hidden(), prompt_set="marked", **on_odd)
    assert [one["prompt_id"] for one in found["points"]] == ["p0000a", "p0001", "p0002"]
    assert found["points"][0]["text"] == "a" * 300 + "…"
    # Equal points have no correlation, which is no error of JSON.
    assert json.loads(json.dumps(found, allow_nan=False))["points"][0]["total"] == 3
    nothing = scatter(connect(root), Hidden(), prompt_set="plain", **on_odd)
    assert nothing["points"] == []


def test_a_large_set_is_drawn_in_part_and_counted_whole(connection, monkeypatch) -> None:
    hidden = Hidden()
    (whole, *_) = scatter(connection, hidden, prompt_set="marked")["points"]
    monkeypatch.setattr(views, "MAX_POINTS", 7)
    part = scatter(connection, hidden, prompt_set="marked")["points"]
    assert len(part) == 7 and part[0] == whole


def test_cells_have_the_auroc_of_the_axis_and_the_cosine_with_the_layer_before(connection):
    found = layers(connection)
    aurocs = {
        row["axis_id"]: row["auroc"]
        for row in rows(connection, "from v_auroc where prompt_set = 'marked'")
    }
    cells = {(one["layer"], one["model"]): one for one in found["cells"]}
    assert list(cells) == [(layer, model) for layer in range(3) for model in ("alpha", "beta")]
    for (layer, model), one in cells.items():
        assert one["auroc"] == (aurocs[f"native-{model}"] if layer == LAYER else None)
        assert one["out_of_fold"] is None
    # The vectors (0.6, 0.8), (1, 0) and (0.8, 0.6).
    cosines = [cells[layer, "beta"]["cosine"] for layer in range(3)]
    assert cosines[0] is None and cosines[1:] == pytest.approx([0.6, 0.8])
    other = layers(connection, family=found["family"], prompt_set="plain")
    assert all(one["auroc"] is None for one in other["cells"]) and len(other["cells"]) == 6
    assert layers(connection, family="nothing")["cells"] == []


def test_out_of_fold_values_are_those_of_the_same_pooling(explored: Path, tmp_path: Path) -> None:
    root = shutil.copytree(explored, tmp_path / "lake")
    common = {"model": "alpha", "model_id": "id-alpha", "prompt_set": "marked", "layer": LAYER}
    common |= {"scorer": "native_cross_validated", "metric": "auroc", "fitted_on": "x"}
    place = {"site": "x", "template": "x"}
    evaluated = {"a": ({**place, "pooling": "y"}, 0.9), "b": ({**place, "pooling": "x"}, 0.7)}
    for study_id, (parameters, estimate) in evaluated.items():
        row = {**common, "study_id": study_id, "parameters": json.dumps(parameters)}
        put(root, "evaluations", {**row, "estimate": estimate, "run_id": "run"})
    cells = layers(connect(root))["cells"]
    stored = {(one["layer"], one["model"]): one["out_of_fold"] for one in cells}
    assert stored.pop((LAYER, "alpha")) == 0.7 and set(stored.values()) == {None}


def test_a_difference_has_the_rows_of_its_views(connection: Connection) -> None:
    found = differences(connection)
    assert found["study"] == "difference"
    assert found["layers"] == rows(connection, "from v_model_differences order by layer")
    assert [one["relative_norm"] for one in found["layers"]] == [0.25, 1.25]
    (move,) = found["moves"]
    assert (move["axis_name"], move["moved"], move["moved_lower"]) == ("universal/demo", -1.5, -2.0)
    with pytest.raises(QueryError, match="no comparison nothing"):
        differences(connection, study="nothing")


def test_without_axes_there_is_nothing_to_draw(tmp_path: Path) -> None:
    init_root(tmp_path / "lake")
    empty = connect(tmp_path / "lake")
    assert scatter(empty, Hidden(), prompt_set="x")["points"] == []
    assert layers(empty)["cells"] == [] and differences(empty)["comparisons"] == []


def test_a_completion_is_compared_with_others_of_its_prompt(connection: Connection) -> None:
    found = completion(connection, Hidden(), generation="g-alpha-p0001")
    assert [one["generation_id"] for one in found["others"]] == ["g-beta-p0001"]
