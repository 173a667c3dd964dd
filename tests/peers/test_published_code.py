"""What other tools' own code makes of our files, and we of theirs.

hidden-directions is a package of PyPI. Of the others, which are not, PEERS_SOURCES is a folder with
checkouts: IBM/activation-steering, ZJU-REAL/EasySteer and andyrdt/refusal_direction.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from axes.analysis.exchange.export_axes import export_axes
from axes.analysis.exchange.import_axes import ImportRequest, import_axes
from axes.ingest.models.load import load
from axes.warehouse.axes import find_axis
from axes.warehouse.handle import Warehouse
from tests.peers.conftest import LAYER_COUNT, NATIVE

SOURCES = Path(os.environ.get("PEERS_SOURCES", "none"))


def module(path: str) -> ModuleType:
    """A module of a checkout, without the packages around it, which import vLLM and more."""
    file = SOURCES / path
    if not file.exists():
        pytest.skip(f"no {path} below PEERS_SOURCES")
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None and spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    # A dataclass looks itself up by its module.
    importlib.import_module("sys").modules[file.stem] = found
    spec.loader.exec_module(found)
    return found


def vector_at(warehouse: Warehouse, layer: int) -> np.ndarray:
    return find_axis(warehouse, NATIVE.format(layer=layer)).vector


def test_easysteer_reads_every_layer_and_we_read_what_it_writes(warehouse, lake, tmp_path) -> None:
    control_vector = module("EasySteer/easysteer/steer/utils.py").StatisticalControlVector
    path = tmp_path / "axis.gguf"
    export_axes(warehouse, [NATIVE.format(layer=0)], "easysteer", path, all_layers=True)
    read = control_vector.import_gguf(path)
    assert read.method == "mean_diff" and sorted(read.directions) == list(range(LAYER_COUNT))
    for layer, direction in read.directions.items():
        np.testing.assert_array_equal(direction, vector_at(warehouse, layer))
    theirs = {2: np.random.default_rng(0).standard_normal(32, dtype=np.float32)}
    control_vector("diffmean", theirs, model_type="llama").export_gguf(tmp_path / "theirs.gguf")
    request = ImportRequest(model="peer")
    (axis,) = import_axes(Warehouse.open(lake), tmp_path / "theirs.gguf", request).axes
    assert axis.layer == 2 and axis.raw_norm == pytest.approx(np.linalg.norm(theirs[2]))


def test_ibm_reads_every_layer_and_we_read_what_it_writes(
    warehouse, lake, tmp_path, monkeypatch
) -> None:
    if not (SOURCES / "activation-steering").exists():
        pytest.skip("no activation-steering below PEERS_SOURCES")
    monkeypatch.syspath_prepend(SOURCES / "activation-steering")
    steering_vector = importlib.import_module("activation_steering").SteeringVector
    path = tmp_path / "axis.svec"
    export_axes(warehouse, [NATIVE.format(layer=0)], "svec", path, all_layers=True)
    read = steering_vector.load(str(path))
    assert read.model_type == "llama" and sorted(read.directions) == list(range(LAYER_COUNT))
    for layer, direction in read.directions.items():
        np.testing.assert_array_equal(direction.astype(np.float32), vector_at(warehouse, layer))
    theirs = {2: np.random.default_rng(0).standard_normal(32)}
    steering_vector("llama", theirs, {2: 0.5}).save(str(tmp_path / "theirs.svec"))
    request = ImportRequest(model="peer")
    (axis,) = import_axes(Warehouse.open(lake), tmp_path / "theirs.svec", request).axes
    assert axis.layer == 2 and axis.raw_norm == pytest.approx(np.linalg.norm(theirs[2]))


@pytest.mark.parametrize("layer", range(LAYER_COUNT - 1))
def test_refusal_direction_adds_it_where_we_do(
    warehouse, loaded, steered, tokens, tmp_path, layer
) -> None:
    hooks = module("refusal_direction/pipeline/utils/hook_utils.py")
    folder = tmp_path / "axis"
    export_axes(warehouse, [NATIVE.format(layer=layer)], "refusal-direction", folder)
    # As run_pipeline does: the direction of artifacts, added to the input of the block.
    metadata = json.loads((folder / "direction_metadata.json").read_text())
    block = loaded.model.model.layers[metadata["layer"]]
    vector = torch.load(folder / "direction.pt")
    hook = hooks.get_activation_addition_input_pre_hook(vector=vector, coeff=torch.tensor(1.5))
    with hooks.add_hooks([(block, hook)], []), torch.inference_mode():
        theirs = loaded.model(tokens).logits
    torch.testing.assert_close(theirs, steered([layer], 1.5), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layer", range(LAYER_COUNT))
def test_hidden_directions_bakes_it_in_where_we_add_it(
    warehouse, loaded, steered, tokens, tmp_path, layer
) -> None:
    bake = pytest.importorskip("hidden_directions.bake").bake_advocate
    patch = importlib.import_module("hidden_directions.load").patch_down_proj_bias
    folder = tmp_path / "axis"
    export_axes(warehouse, [NATIVE.format(layer=0)], "hidden-directions", folder, all_layers=True)
    stack = torch.load(folder / "direction.pt")
    options = {"v_pref": stack, "alpha_pref": 1.5, "dtype": torch.float32}
    baked = bake(tmp_path / "baked", "peer", layer, **options)
    bias = torch.load(Path(baked) / "advocate_bias.pt" if Path(baked).is_dir() else baked)["bias"]
    fresh = load(loaded.spec, Path(loaded.spec.source), loaded.identity, "cpu").model
    patch(fresh, layer, bias)
    with torch.inference_mode():
        theirs = fresh(tokens).logits
    torch.testing.assert_close(theirs, steered([layer], 1.5), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(theirs, steered([layer], 0.0), atol=1e-3)
