"""Autoencoders that SAELens's own code saves: an axis is what a feature adds when it is decoded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import sae_lens
import torch
from sae_lens.saes.sae import SAEMetadata
from safetensors import safe_open

from axes.analysis.exchange.formats import ImportRequest
from axes.analysis.exchange.import_axes import import_axes
from axes.warehouse.axes import find_axis
from tests.saes import random_rows, save_sae

FEATURES = (3, 17, 63)
ARCHITECTURES = {
    "standard": ({}, "blocks.1.hook_resid_post", (1, "resid_post")),
    "gated": ({}, "blocks.2.hook_attn_out", (2, "attn_out")),
    "jumprelu": ({"dtype": "bfloat16"}, "blocks.2.hook_resid_pre", (1, "resid_post")),
    "topk": ({"k": 4}, "blocks.0.hook_mlp_out", (0, "mlp_out")),
    "transcoder": ({"d_out": 32, "apply_b_dec_to_input": False}, "", (3, "mlp_out")),
}
HOOKS_OF_TRANSCODER = {
    "hook_name": "blocks.3.ln2.hook_normalized",
    "hook_name_out": "blocks.3.hook_mlp_out",
}


def saved(folder: Path, architecture: str, hook: str, **config: object) -> sae_lens.SAE:
    """An autoencoder of theirs with random weights, saved by their code."""
    torch.manual_seed(0)
    hooks = {"hook_name": hook} if hook else HOOKS_OF_TRANSCODER
    described = {"d_in": 32, "d_sae": 64, "architecture": architecture, **config}
    described["metadata"] = SAEMetadata(model_name="peer", **hooks).to_dict()
    sae = sae_lens.SAE.from_dict(described)
    sae.save_model(folder)
    return sae


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_axis_is_the_feature_as_they_decode_it(warehouse, tmp_path, architecture) -> None:
    config, hook, place = ARCHITECTURES[architecture]
    sae = saved(tmp_path / "saved", architecture, hook, **config)
    imported = import_axes(warehouse, tmp_path / "saved", ImportRequest(features=FEATURES))
    assert imported.format == "sae"
    with torch.no_grad():
        # One feature at a time, as often as it is on.
        on = torch.eye(64, dtype=sae.W_dec.dtype)[list(FEATURES)]
        decoded = (sae.decode(on) - sae.decode(torch.zeros_like(on))).float()
    for row, axis in zip(decoded, imported.axes, strict=True):
        assert (axis.layer, axis.site) == place
        assert axis.raw_norm == pytest.approx(row.norm().item(), rel=1e-5)
        vector = torch.from_numpy(find_axis(warehouse, axis.axis_id).vector).float()
        torch.testing.assert_close(vector, row / row.norm(), rtol=1e-5, atol=1e-6)


def test_the_tests_write_the_files_that_they_write(tmp_path: Path) -> None:
    sae = saved(tmp_path / "theirs", "standard", "blocks.1.hook_resid_post", d_in=16, d_sae=8)
    ours, theirs = save_sae(tmp_path / "ours", random_rows(8, 16)), tmp_path / "theirs"
    configs = [json.loads((folder / "cfg.json").read_text()) for folder in (ours, theirs)]
    assert configs[0].keys() == configs[1].keys()
    assert configs[0]["metadata"].keys() <= configs[1]["metadata"].keys()
    shapes = []
    for folder in (ours, theirs):
        with safe_open(folder / "sae_weights.safetensors", "pt") as file:
            shapes.append({name: file.get_slice(name).get_shape() for name in file.keys()})  # noqa: SIM118
    assert shapes[0] == shapes[1]
    loaded = sae_lens.SAE.load_from_disk(ours)
    assert loaded.cfg.metadata.hook_name == sae.cfg.metadata.hook_name
