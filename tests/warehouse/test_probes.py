"""A probe gives on a model's own vector what the alignment and the axis give together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from axes.warehouse.axes import read_probes
from axes.warehouse.errors import AxisError
from tests.rows import put

WIDTH, REFERENCE = 3, 2
WEIGHTS = np.arange(6.0).reshape(WIDTH, REFERENCE)
INTERCEPT = np.array([1.0, -2.0])
AXIS = np.array([0.6, 0.8])
SPACE = {"site": "resid_post", "pooling": "last5_mean", "template": "raw"}


def put_axes(root: Path) -> None:
    native = {**SPACE, "axis_id": "native-axis", "name": "native", "kind": "native", "layer": 2}
    put(root, "axes", {**native, "space_model_id": "own", "vector": [0.0, 1.0, 0.0]})
    shared = {**SPACE, "axis_id": "shared-axis", "name": "shared", "kind": "universal", "layer": 5}
    put(root, "axes", {**shared, "space_model_id": "reference", "vector": AXIS.tolist()})


def put_alignment(root: Path, alignment_id: str, layer: int) -> None:
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
    put(root, "alignments", described)


def test_an_axis_of_another_space_is_pulled_back(root: Path) -> None:
    put_axes(root)
    put_alignment(root, "map", 1)
    native, shared = sorted(
        read_probes(root, ["native", "shared"], model="m", model_id="own"),
        key=lambda probe: probe.name,
    )
    assert native.key == ("native-axis", 2, None) and native.offset == 0
    assert shared.key == ("shared-axis", 1, "map")
    x = np.array([3.0, -1.0, 2.0])
    expected = (x @ WEIGHTS + INTERCEPT) @ AXIS
    assert x @ shared.vector + shared.offset == pytest.approx(expected, rel=1e-6)


def test_the_map_that_projects_the_prompts_is_the_one_that_is_used(root: Path) -> None:
    put_axes(root)
    for name in ("one", "two"):
        put_alignment(root, name, 1)
    with pytest.raises(AxisError, match=r"layer 1 of m .* there are 2 \(one, two\)"):
        read_probes(root, ["shared"], model="m", model_id="own")
    used = {"axis_id": "shared-axis", "layer": 1, "alignment_id": "two"}
    put(root, "projections", {**used, "model": "m", "model_id": "own", "prompt_id": "p"})
    (probe,) = read_probes(root, ["shared"], model="m", model_id="own")
    assert probe.alignment_id == "two"


def test_layers_are_chosen_and_one_without_a_map_is_refused(root: Path) -> None:
    put_axes(root)
    put_alignment(root, "map", 1)
    probes = read_probes(root, ["native-axis"], model="m", model_id="own", layers=[0, 3])
    assert [probe.layer for probe in probes] == [0, 3]
    with pytest.raises(AxisError, match=r"layer 4 of m into it there are 0 \(none\)"):
        read_probes(root, ["shared"], model="m", model_id="own", layers=[4])
    with pytest.raises(AxisError, match="no axis nonsense"):
        read_probes(root, ["nonsense"], model="m", model_id="own")
