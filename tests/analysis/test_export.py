from __future__ import annotations

import json

import numpy as np
import pytest
from gguf import GGUFReader
from safetensors import safe_open

from analysis.definition import StudyDefinition
from analysis.export import axis_card, export_axis, find_axis
from analysis.study import run_study
from tests.worlds import make_world
from warehouse.connection import connect
from warehouse.errors import AxisError

NAME = "universal/pair/2/labelled/lambda-held_out"


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory):
    root = tmp_path_factory.mktemp("export") / "lake"
    make_world(root, widths={"alpha": 16, "beta": 20}, benign_count=60, labelled={"labelled": 40})
    definition = StudyDefinition(
        models=("alpha", "beta"),
        reference="beta",
        prompts="labelled",
        align="benign",
        label="pair",
    )
    run_study(root, definition)
    return connect(root)


def test_safetensors_holds_the_unit_vector_and_the_card(connection, tmp_path):
    path = export_axis(connection, NAME, "safetensors", tmp_path / "deep" / "axis.safetensors")
    with safe_open(path, framework="numpy") as file:
        vector = file.get_tensor("direction")
        card = json.loads(file.metadata()["card"])
    assert vector.dtype == np.float32 and vector.shape == (20,)
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)
    np.testing.assert_array_equal(vector, find_axis(connection, NAME)["vector"])
    assert card["name"] == NAME and card["layer"] == 2 and card["is_unit_norm"]


def test_the_card_says_what_it_was_made_from_and_how_good_it_is(connection):
    row = find_axis(connection, NAME)
    card = axis_card(connection, row)
    assert card["space_model"] == "beta" and card["space"]["d_model"] == 20
    assert card["site"] == "resid_post" and card["pooling"] == "last5_mean"
    assert card["method"] == "svd" and card["prompt_set"] == "labelled"
    assert (card["positive_count"], card["negative_count"]) == (40, 40)
    assert len(card["source_axis_ids"]) == 2
    areas = {row["model"]: row["auroc"] for row in card["evaluation"]}
    assert set(areas) == {"alpha", "beta"} and all(0.8 < area <= 1 for area in areas.values())
    assert "vector" not in card
    json.dumps(card)


def test_json_holds_the_same_numbers(connection, tmp_path):
    path = export_axis(connection, NAME, "json", tmp_path / "axis.json")
    card = json.loads(path.read_text())
    np.testing.assert_array_equal(
        np.array(card["vector"], dtype=np.float32), find_axis(connection, NAME)["vector"]
    )


def test_gguf_is_a_control_vector_of_one_layer(connection, tmp_path):
    reader = GGUFReader(export_axis(connection, NAME, "gguf", tmp_path / "axis.gguf"))
    fields = {name: field.contents() for name, field in reader.fields.items()}
    assert fields["general.architecture"] == "controlvector"
    assert fields["controlvector.model_hint"] == "llama"
    assert fields["controlvector.layer_count"] == 1
    assert [tensor.name for tensor in reader.tensors] == ["direction.2"]
    np.testing.assert_array_equal(reader.tensors[0].data, find_axis(connection, NAME)["vector"])


def test_block_zero_cannot_be_a_control_vector(connection, tmp_path):
    with pytest.raises(AxisError, match=r"direction\.0"):
        export_axis(connection, "native/alpha/0/labelled", "gguf", tmp_path / "axis.gguf")
    assert not (tmp_path / "axis.gguf").exists()
    path = export_axis(connection, "native/alpha/0/labelled", "json", tmp_path / "axis.json")
    assert json.loads(path.read_text())["layer"] == 0


def test_an_axis_is_found_by_name_by_id_and_by_the_start_of_an_id(connection):
    row = find_axis(connection, NAME)
    assert find_axis(connection, row["axis_id"])["name"] == NAME
    assert find_axis(connection, row["axis_id"][:8])["name"] == NAME
    with pytest.raises(AxisError, match="no axis nonsense"):
        find_axis(connection, "nonsense")


def test_a_name_that_several_axes_have_asks_for_an_id(connection, tmp_path):
    connection.execute("create temp table axes as from stg_axes union all from stg_axes")
    try:
        with pytest.raises(AxisError, match="2 axes fit .*give one id"):
            find_axis(connection, NAME)
    finally:
        connection.execute("drop table temp.axes")
