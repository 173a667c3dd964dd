"""repeng reads what we write, steers with it as we do, and we read what it writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from axes.analysis.exchange.export_axes import export_axes
from axes.analysis.exchange.import_axes import ImportRequest, import_axes
from axes.ingest.models.load import load
from axes.warehouse.axes import find_axis
from axes.warehouse.handle import Warehouse
from tests.peers.conftest import LAYER_COUNT, NATIVE

# repeng 0.4.0 names it in an annotation, and NumPy 2 has it no more.
np.float_ = np.float64  # type: ignore[attr-defined]
from repeng import ControlModel, ControlVector  # noqa: E402


@pytest.mark.parametrize("to", ["repeng", "easysteer"])
def test_its_importer_reads_every_layer(warehouse, tmp_path: Path, to: str) -> None:
    path = tmp_path / "axis.gguf"
    export_axes(warehouse, [NATIVE.format(layer=0)], to, path, all_layers=True)
    vector = ControlVector.import_gguf(path)
    assert vector.model_type == "llama"
    assert sorted(vector.directions) == list(range(LAYER_COUNT))
    for layer, direction in vector.directions.items():
        expected = find_axis(warehouse, NATIVE.format(layer=layer)).vector
        np.testing.assert_array_equal(direction, expected)


@pytest.mark.parametrize("layer", range(LAYER_COUNT))
def test_it_steers_as_we_do(warehouse, loaded, steered, tokens, tmp_path, layer: int) -> None:
    path = tmp_path / "axis.gguf"
    export_axes(warehouse, [NATIVE.format(layer=layer)], "repeng", path)
    vector = ControlVector.import_gguf(path)
    fresh = load(loaded.spec, Path(loaded.spec.source), loaded.identity, "cpu").model
    control = ControlModel(fresh, [layer])
    control.set_control(vector, 1.5)
    with torch.inference_mode():
        theirs = control(tokens).logits
    torch.testing.assert_close(theirs, steered([layer], 1.5), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(theirs, steered([layer], 0.0), atol=1e-3)


def test_we_read_what_it_writes(lake, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    directions = {
        layer: random.standard_normal(32, dtype=np.float32) for layer in range(1, LAYER_COUNT)
    }
    path = tmp_path / "theirs.gguf"
    ControlVector(model_type="llama", directions=directions).export_gguf(path)
    imported = import_axes(Warehouse.open(lake), path, ImportRequest(model="peer"))
    assert [axis.layer for axis in imported.axes] == list(directions)
    warehouse = Warehouse.open(lake)
    for axis in imported.axes:
        unit = directions[axis.layer] / np.linalg.norm(directions[axis.layer])
        assert find_axis(warehouse, axis.axis_id).vector @ unit == pytest.approx(1.0)
        assert axis.raw_norm == pytest.approx(np.linalg.norm(directions[axis.layer]))
