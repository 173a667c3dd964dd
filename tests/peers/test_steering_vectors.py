"""A `SteeringVector` built from our file as the docs say steers as we do, and comes back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from steering_vectors import SteeringVector

from axes.analysis.exchange.export_axes import export_axes
from axes.analysis.exchange.import_axes import ImportRequest, import_axes
from axes.warehouse.handle import Warehouse
from tests.peers.conftest import LAYER_COUNT, NATIVE


def build(path: Path) -> SteeringVector:
    """The lines of docs/formats.md."""
    layers = {int(block): vector for block, vector in load_file(path).items()}
    return SteeringVector(layer_activations=layers, layer_type="decoder_block")


@pytest.mark.parametrize("layers", [[0], [2], [0, 1, 2, 3]])
def test_it_steers_as_we_do(warehouse, loaded, steered, tokens, tmp_path, layers) -> None:
    path = tmp_path / "axis.safetensors"
    names = [NATIVE.format(layer=layer) for layer in layers]
    export_axes(warehouse, names, "steering-vectors", path)
    with build(path).apply(loaded.model, multiplier=1.5), torch.inference_mode():
        theirs = loaded.model(tokens).logits
    torch.testing.assert_close(theirs, steered(layers, 1.5), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(theirs, steered(layers, 0.0), atol=1e-3)


def test_one_of_theirs_becomes_axes_by_the_file_of_the_docs(lake, tmp_path: Path) -> None:
    torch.manual_seed(0)
    steering = SteeringVector({layer: torch.randn(32) for layer in range(LAYER_COUNT)})
    path = tmp_path / "theirs.safetensors"
    save_file(
        {str(block): vector for block, vector in steering.layer_activations.items()},
        path,
        metadata={"layer_type": steering.layer_type},
    )
    imported = import_axes(Warehouse.open(lake), path, ImportRequest(model="peer"))
    assert imported.format == "steering-vectors"
    assert [axis.layer for axis in imported.axes] == list(range(LAYER_COUNT))
