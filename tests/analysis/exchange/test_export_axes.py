from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from gguf import GGUFReader
from safetensors import safe_open
from safetensors.torch import load_file

from axes.analysis.exchange.export_axes import export_axes
from axes.analysis.exchange.formats import FORMATS
from axes.warehouse.axes import find_axis
from axes.warehouse.errors import AxisError
from tests.rows import put

NAME = "universal/pair/2/labelled/benign/lambda-held_out"
NATIVE = "native/alpha/{layer}/labelled"


@pytest.fixture(scope="module", autouse=True)
def _at_sites(warehouse) -> None:
    """An axis at the input of block 0, and one in what an MLP adds."""
    axis = {
        "kind": "imported",
        "space_model": "alpha",
        "space_model_id": "id-alpha",
        "vector": [1.0] + [0.0] * 15,
        "raw_norm": 3.0,
        "parameters": "{}",
        "prompt_set": "",
    }
    put(
        warehouse.root,
        "axes",
        {**axis, "axis_id": "input", "name": "input", "layer": 0, "site": "resid_pre"},
        {**axis, "axis_id": "added", "name": "added", "layer": 1, "site": "mlp_out"},
    )


def vector_of(warehouse, name: str) -> np.ndarray:
    return find_axis(warehouse, name).vector


def exported(warehouse, tmp_path, to: str, *names: str, **options):
    target = tmp_path / f"{to}{FORMATS[to].suffix}"
    return export_axes(warehouse, names or (NAME,), to, target, **options).path


def test_safetensors_holds_the_unit_vector_and_the_card(warehouse, tmp_path):
    target = tmp_path / "deep" / "axis.safetensors"
    path = export_axes(warehouse, [NAME], "safetensors", target).path
    with safe_open(path, framework="numpy") as file:
        vector = file.get_tensor("direction")
        card = json.loads(file.metadata()["card"])
    assert vector.dtype == np.float32 and vector.shape == (20,)
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)
    np.testing.assert_array_equal(vector, vector_of(warehouse, NAME))
    assert card["name"] == NAME and card["layer"] == 2 and card["is_unit_norm"]


def test_gguf_is_a_control_vector_that_llama_cpp_adds_after_the_block(warehouse, tmp_path):
    reader = GGUFReader(exported(warehouse, tmp_path, "gguf"))
    fields = {name: field.contents() for name, field in reader.fields.items()}
    assert fields["general.architecture"] == "controlvector"
    assert fields["controlvector.model_hint"] == "llama"
    assert fields["controlvector.layer_count"] == 1
    assert [tensor.name for tensor in reader.tensors] == ["direction.2"]
    np.testing.assert_array_equal(reader.tensors[0].data, vector_of(warehouse, NAME))


def test_every_layer_is_one_file_and_each_format_counts_in_its_own_way(warehouse, tmp_path):
    expected = {layer: vector_of(warehouse, NATIVE.format(layer=layer)) for layer in range(3)}
    one = NATIVE.format(layer=1)

    def written(to: str):
        return exported(warehouse, tmp_path, to, one, all_layers=True)

    repeng = GGUFReader(written("repeng")).tensors
    assert [tensor.name for tensor in repeng] == ["direction.0", "direction.1", "direction.2"]
    cvector = GGUFReader(written("gguf-cvector")).tensors
    assert [tensor.name for tensor in cvector] == ["direction.1", "direction.2", "direction.3"]
    persona = torch.load(written("persona-vectors"), weights_only=True).numpy()
    assert persona.shape == (4, 16) and not persona[0].any()
    hidden = torch.load(written("hidden-directions") / "direction.pt", weights_only=True).numpy()
    assert hidden.shape == (3, 16)
    svec = json.loads(written("svec").read_text())
    assert svec["model_type"] == "llama" and svec["explained_variances"].keys() == {"0", "1", "2"}
    steering = load_file(written("steering-vectors"))
    for layer, vector in expected.items():
        np.testing.assert_array_equal(repeng[layer].data, vector)
        np.testing.assert_array_equal(cvector[layer].data, vector)
        np.testing.assert_array_equal(persona[layer + 1], vector)
        np.testing.assert_array_equal(hidden[layer], vector)
        np.testing.assert_array_equal(np.float32(svec["directions"][str(layer)]), vector)
        np.testing.assert_array_equal(steering[str(layer)].numpy(), vector)


def test_refusal_direction_counts_the_block_that_takes_it_in(warehouse, tmp_path):
    folder = exported(warehouse, tmp_path, "refusal-direction")
    metadata = json.loads((folder / "direction_metadata.json").read_text())
    assert metadata == {"pos": None, "layer": 3}
    tensor = torch.load(folder / "direction.pt", weights_only=True)
    np.testing.assert_array_equal(tensor.numpy(), vector_of(warehouse, NAME))
    with pytest.raises(AxisError, match="holds one axis, found 3"):
        exported(warehouse, tmp_path, "refusal-direction", NATIVE.format(layer=1), all_layers=True)


def test_a_block_without_a_number_is_left_out_of_several_and_refused_alone(warehouse, tmp_path):
    first = NATIVE.format(layer=0)
    with pytest.raises(AxisError, match=r"direction\.0: use another format, repeng"):
        exported(warehouse, tmp_path, "gguf", first)
    with pytest.raises(AxisError, match="of the embedding"):
        exported(warehouse, tmp_path, "repeng", "input")
    assert not list(tmp_path.iterdir())
    target = tmp_path / "all.gguf"
    done = export_axes(warehouse, [first], "gguf", target, all_layers=True)
    assert len(done.remarks) == 1 and "at layer 0" in done.remarks[0]
    assert [tensor.name for tensor in GGUFReader(target).tensors] == ["direction.1", "direction.2"]


def test_the_input_of_a_block_is_what_the_block_before_puts_out(warehouse, tmp_path):
    folder = exported(warehouse, tmp_path, "refusal-direction", "input")
    assert json.loads((folder / "direction_metadata.json").read_text())["layer"] == 0
    with pytest.raises(AxisError, match="lies in mlp_out.*use safetensors"):
        exported(warehouse, tmp_path, "repeng", "added")
    assert exported(warehouse, tmp_path, "npz", "added").exists()


def test_one_file_is_of_one_model_and_has_one_axis_a_layer(warehouse, tmp_path):
    with pytest.raises(AxisError, match=r"one model and site.*alpha.*beta"):
        exported(warehouse, tmp_path, "json", NATIVE.format(layer=1), NAME)
    with pytest.raises(AxisError, match="several at layer 1"):
        exported(warehouse, tmp_path, "json", NATIVE.format(layer=1), NATIVE.format(layer=1))


def test_a_raw_vector_is_as_long_as_it_was_fitted(warehouse, tmp_path):
    row = find_axis(warehouse, NATIVE.format(layer=1))
    path = exported(warehouse, tmp_path, "npz", row.name, is_raw=True)
    with np.load(path) as file:
        assert np.linalg.norm(file["direction"]) == pytest.approx(row.raw_norm, rel=1e-6)
        assert not json.loads(str(file["card"]))["is_unit_norm"]


def test_a_hub_folder_has_a_model_card_with_front_matter(warehouse, tmp_path):
    from huggingface_hub import ModelCard

    folder = exported(warehouse, tmp_path, "hub", NATIVE.format(layer=1), all_layers=True)
    assert {path.name for path in folder.iterdir()} == {
        "README.md",
        "card.json",
        "direction.safetensors",
    }
    card = ModelCard.load(folder / "README.md")
    assert card.data.library_name == "safety-axes" and card.data.license == "other"
    assert "## Limits" in card.text and "0, 1, 2: zero-based block index" in card.text
    assert card.text.count("| labelled | native | auroc |") == 1
    assert card.text.count("| labelled | axis | auroc |") == 2


@pytest.mark.parametrize("to", FORMATS)
def test_an_axis_is_exported_to_the_same_bytes_each_time(to, warehouse, tmp_path):
    # The safetensors library orders metadata by chance.
    found = set()
    for _ in range(6):
        path = exported(warehouse, tmp_path, to, NATIVE.format(layer=1))
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        found.add(b"".join(file.read_bytes() for file in files if file.is_file()))
    assert len(found) == 1
