"""vLLM-Lens reads what we write, adds it where we do, and we read what it writes.

Its steering is called as the hook of its worker calls it, after a block; vLLM is not installed, and
the two names that the worker's module takes from it stand for nothing here.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from axes.analysis.exchange.export_axes import export_axes
from axes.analysis.exchange.import_axes import ImportRequest, import_axes
from axes.warehouse.axes import find_axis
from axes.warehouse.handle import Warehouse
from tests.peers.conftest import LAYER_COUNT, NATIVE

for name, attributes in {
    "vllm": (),
    "vllm.forward_context": ("get_forward_context", "is_forward_context_available"),
    "vllm.model_executor": (),
    "vllm.model_executor.models": (),
    "vllm.model_executor.models.utils": ("PPMissingLayer",),
}.items():
    sys.modules[name] = ModuleType(name)
    vars(sys.modules[name]).update(dict.fromkeys(attributes))
from vllm_lens import SteeringVector  # noqa: E402
from vllm_lens._worker_ext import _apply_steering  # noqa: E402


def read(path: Path) -> SteeringVector:
    """The line that `axes export` prints."""
    return SteeringVector.model_validate(json.loads(path.read_text()))


def test_its_reader_reads_every_layer(warehouse, tmp_path: Path) -> None:
    path = tmp_path / "axis.json"
    export_axes(warehouse, [NATIVE.format(layer=0)], "vllm-lens", path, all_layers=True)
    vector = read(path)
    assert vector.layer_indices == list(range(LAYER_COUNT)) and vector.scale == 1.0
    for layer, row in zip(vector.layer_indices, vector.activations.numpy(), strict=True):
        np.testing.assert_array_equal(row, find_axis(warehouse, NATIVE.format(layer=layer)).vector)


@pytest.mark.parametrize("layers", [[0], [2], [0, 1, 2, 3]])
def test_it_steers_as_we_do(warehouse, loaded, steered, tokens, tmp_path, layers) -> None:
    path = tmp_path / "axis.json"
    names = [NATIVE.format(layer=layer) for layer in layers]
    export_axes(warehouse, names, "vllm-lens", path)
    vector = read(path).model_copy(update={"scale": 1.5})
    hooks = []
    for number, block in enumerate(loaded.model.model.layers):

        def after(_block, _inputs, output, number=number):
            hidden = output.clone()
            for row in hidden:
                _apply_steering([vector], number, row, 0, len(row), 0, row)
            return hidden

        hooks.append(block.register_forward_hook(after))
    try:
        with torch.inference_mode():
            theirs = loaded.model(tokens).logits
    finally:
        for hook in hooks:
            hook.remove()
    torch.testing.assert_close(theirs, steered(layers, 1.5), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(theirs, steered(layers, 0.0), atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_we_read_what_it_writes(lake, tmp_path: Path, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    rows = torch.randn(LAYER_COUNT, 32).to(dtype)
    vector = SteeringVector(activations=rows, layer_indices=[3, 2, 1, 0], scale=2.0)
    path = tmp_path / "theirs.json"
    path.write_text(json.dumps(vector.model_dump()))
    imported = import_axes(Warehouse.open(lake), path, ImportRequest(model="peer"))
    assert imported.format == "vllm-lens"
    for axis in imported.axes:
        row = rows[3 - axis.layer].float().numpy()
        stored = find_axis(Warehouse.open(lake), axis.axis_id).vector
        assert stored @ row / np.linalg.norm(row) == pytest.approx(1.0)
        assert axis.raw_norm == pytest.approx(2 * np.linalg.norm(row))
