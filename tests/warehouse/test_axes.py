"""A name means one axis, and a model reaches it through one alignment."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from axes.warehouse.axes import (
    AXIS_TABLES,
    AxisReadout,
    find_axis,
    read_axis_readout,
    read_axis_readouts,
    resolve_alignment,
)
from axes.warehouse.errors import AxisError, NoAlignmentError
from axes.warehouse.handle import Warehouse
from tests.rows import put

WIDTH, REFERENCE = 3, 2
WEIGHTS = np.arange(6.0).reshape(WIDTH, REFERENCE)
INTERCEPT = np.array([1.0, -2.0])
AXIS = np.array([0.6, 0.8])
SPACE = {"site": "resid_post", "pooling": "last5_mean", "template": "raw"}


@pytest.fixture
def warehouse(root: Path) -> Warehouse:
    native = {**SPACE, "axis_id": "native-axis", "name": "native", "kind": "native", "layer": 2}
    put(root, "axes", {**native, "space_model_id": "own", "vector": [0.0, 1.0, 0.0]})
    shared = {**SPACE, "axis_id": "shared-axis", "name": "shared", "kind": "universal", "layer": 5}
    put(root, "axes", {**shared, "space_model_id": "reference", "vector": AXIS.tolist()})
    return Warehouse.open_tables(root, *AXIS_TABLES)


def put_alignment(root: Path, alignment_id: str, layer: int, **columns: object) -> None:
    described = {
        **SPACE,
        "alignment_id": alignment_id,
        "model": "m",
        "model_id": "own",
        "layer": layer,
        "reference_model_id": "reference",
        "reference_layer": 5,
        "weights": WEIGHTS.reshape(-1).tolist(),
        "intercept": INTERCEPT.tolist(),
    }
    put(root, "alignments", {**described, **columns})


def put_projection(root: Path, alignment_id: str, layer: int = 1) -> None:
    used = {"axis_id": "shared-axis", "layer": layer, "alignment_id": alignment_id}
    put(root, "projections", {**used, "model": "m", "model_id": "own", "prompt_id": "p"})


def readout(warehouse: Warehouse, name: str = "shared", **options: object) -> AxisReadout:
    return read_axis_readout(warehouse, find_axis(warehouse, name), "m", "own", **options)


def test_an_axis_of_another_space_is_pulled_back(warehouse):
    put_alignment(warehouse.root, "map", 1)
    native, shared = sorted(
        read_axis_readouts(warehouse, ["native", "shared"], "m", "own"),
        key=lambda readout: readout.axis_name,
    )
    assert native.key == ("native-axis", 2, None) and native.offset == 0
    assert shared.key == ("shared-axis", 1, "map")
    x = np.array([3.0, -1.0, 2.0])
    expected = (x @ WEIGHTS + INTERCEPT) @ AXIS
    assert x @ shared.vector + shared.offset == pytest.approx(expected, rel=1e-6)


def test_a_native_axis_of_another_model_is_pulled_back_too(warehouse):
    put_alignment(warehouse.root, "map", 1)
    native = {**SPACE, "axis_id": "theirs", "name": "theirs", "kind": "native", "layer": 5}
    put(warehouse.root, "axes", {**native, "space_model_id": "reference", "vector": AXIS.tolist()})
    np.testing.assert_array_equal(
        readout(warehouse, "theirs").vector, readout(warehouse, "shared").vector
    )


def test_of_several_alignments_the_one_that_projects_the_prompts_is_used(warehouse):
    for name in ("map-one", "map-two"):
        put_alignment(warehouse.root, name, 1)
    with pytest.raises(AxisError, match=r"2 alignments of m .* \(map-one .*; map-two "):
        readout(warehouse)
    assert readout(warehouse, alignment="map-one").alignment_id == "map-one"
    put_projection(warehouse.root, "map-two")
    assert readout(warehouse).alignment_id == "map-two"
    with pytest.raises(AxisError, match="through map-two .* map-one cannot be mixed"):
        readout(warehouse, alignment="map-one")


def test_else_the_one_that_the_axis_was_made_with(warehouse):
    for name in ("map-one", "map-two"):
        put_alignment(warehouse.root, name, 1)
    aligned = {**SPACE, "kind": "aligned", "layer": 5, "space_model_id": "reference"}
    vector = AXIS.tolist()
    put(
        warehouse.root,
        "axes",
        {**aligned, "axis_id": "a", "name": "a", "alignment_id": "map-one", "vector": vector},
        {**aligned, "axis_id": "u", "name": "u", "source_axis_ids": ["a"], "vector": vector},
    )
    for name in ("a", "u"):
        assert readout(warehouse, name).alignment_id == "map-one"


def test_an_alignment_into_another_space_is_no_candidate(warehouse):
    for column, value in (
        ("reference_model_id", "other"),
        ("reference_layer", 4),
        ("site", "mlp_out"),
        ("pooling", "last"),
        ("template", "chat"),
        ("model_id", "another"),
    ):
        put_alignment(warehouse.root, f"not-{column}", 1, **{column: value})
    with pytest.raises(NoAlignmentError, match="no alignment of m leads to layer 5"):
        readout(warehouse)
    put_alignment(warehouse.root, "map", 1)
    assert readout(warehouse).alignment_id == "map"


def test_layers_are_chosen_and_one_without_an_alignment_is_refused(warehouse):
    put_alignment(warehouse.root, "map-one", 1)
    put_alignment(warehouse.root, "map-four", 4)
    own = read_axis_readouts(warehouse, ["native-axis"], "m", "own", layers=[3, 0, 3])
    assert [readout.layer for readout in own] == [0, 3]
    axis = find_axis(warehouse, "shared")
    assert resolve_alignment(warehouse, axis, "m", "own", layer=4) == (4, "map-four")
    with pytest.raises(AxisError, match="2 alignments"):
        resolve_alignment(warehouse, axis, "m", "own")
    with pytest.raises(NoAlignmentError, match="layer 2 of m leads to layer 5"):
        resolve_alignment(warehouse, axis, "m", "own", layer=2)
    with pytest.raises(NoAlignmentError, match="no alignment map of m"):
        resolve_alignment(warehouse, axis, "m", "own", alignment="map")


def test_an_alignment_with_a_hidden_layer_gives_no_readout(warehouse):
    hidden = {
        "hidden_weights": [1.0] * 3,
        "hidden_intercept": [0.0],
        "hidden_output": [1.0, 1.0],
        "hidden_rates": [0.5],
    }
    put_alignment(warehouse.root, "bent", 1, **hidden)
    with pytest.raises(AxisError, match="bent has a hidden layer and is not affine"):
        readout(warehouse)


def put_judged(root: Path, study_id: str, day: int, *names: str, kind: str = "universal") -> None:
    """A study of a day with axes of a kind, called by these names."""
    from datetime import UTC, datetime

    put(root, "runs", {"run_id": study_id, "started_at": datetime(2025, 1, day, tzinfo=UTC)})
    for name in names:
        axis_id = f"{study_id}-{name}"
        put(root, "axes", {"axis_id": axis_id, "name": name, "kind": kind, "run_id": study_id})
        judged = {"study_id": study_id, "axis_id": axis_id, "run_id": study_id, "fitted_on": None}
        put(root, "evaluations", judged)


def test_a_name_an_id_and_the_start_of_an_id_mean_an_axis(warehouse):
    assert find_axis(warehouse, "shared").axis_id == "shared-axis"
    assert find_axis(warehouse, "shared-axis").name == "shared"
    assert find_axis(warehouse, "shared-").name == "shared"
    with pytest.raises(AxisError, match="no axis share.*did you mean shared.*`axes list axes`"):
        find_axis(warehouse, "share")


def test_a_kind_means_the_axis_of_the_latest_study(warehouse):
    put_judged(warehouse.root, "second", 2, "universal/b")
    put_judged(warehouse.root, "first", 1, "universal/a")
    put_judged(warehouse.root, "third", 3, "held/a", "held/b", kind="leave_one_out")
    assert find_axis(warehouse, "universal").name == "universal/b"
    with pytest.raises(AxisError, match=r"2 axes fit leave_one_out.*third-held/a.*third-held/b"):
        find_axis(warehouse, "leave_one_out")
    with pytest.raises(AxisError, match="no axis random"):
        find_axis(warehouse, "random")


def test_a_name_goes_before_a_kind(warehouse):
    put_judged(warehouse.root, "study", 1, "other", kind="native")
    assert find_axis(warehouse, "native").axis_id == "native-axis"


def test_all_columns_of_an_axis_come_back(warehouse):
    stored = warehouse.query("select * exclude (vector) from axes where name = 'shared'")
    axis = find_axis(warehouse, "shared")
    assert axis.columns == stored.to_pylist()[0]
    np.testing.assert_array_equal(axis.vector, AXIS.astype(np.float32))
