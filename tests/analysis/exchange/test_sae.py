"""Decoder rows of SAELens's autoencoders become axes at the layer of their hook point."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from axes.analysis.exchange.formats import ImportRequest
from axes.analysis.exchange.formats.sae import open_sae
from axes.analysis.exchange.import_axes import ImportResult, import_axes
from axes.analysis.projections import score
from axes.warehouse.axes import find_axis
from axes.warehouse.errors import AxesError, AxisError, LayerError, NonFiniteError
from axes.warehouse.maintenance.check import check
from tests.rows import ask
from tests.saes import random_rows, save_sae

WIDTH = 16
NATIVE = "native/alpha/1/labelled"


def bring(warehouse, folder, *features: int, **asked) -> ImportResult:
    return import_axes(warehouse, folder, ImportRequest(features=features or None, **asked))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_planted_feature_is_the_axis_that_it_was_made_from(warehouse, tmp_path, dtype):
    native = find_axis(warehouse, NATIVE)
    rows = random_rows(32, WIDTH)
    rows[5] = 3 * native.vector
    folder = save_sae(tmp_path / f"made-{dtype}", rows, dtype=dtype)
    imported = bring(warehouse, folder, 5, 7)
    assert imported.format == "sae"
    assert [axis.name for axis in imported.axes] == [
        f"imported/alpha/1/made-{dtype}/{feature}" for feature in (5, 7)
    ]
    planted, other = (find_axis(warehouse, axis.axis_id) for axis in imported.axes)
    assert planted.space == native.space and planted.method == "sae"
    assert planted.vector @ native.vector == pytest.approx(1, abs=1e-4)
    assert planted.raw_norm == pytest.approx(3, rel=1e-2)
    assert json.loads(planted.parameters)["number"] == 5
    exact = torch.from_numpy(rows[7]).to(dtype).float().numpy()
    assert other.vector @ exact == pytest.approx(np.linalg.norm(exact), rel=1e-6)
    assert not any(axis.is_new for axis in bring(warehouse, folder, 5, 7).axes)
    if dtype == torch.float32:
        score(warehouse.root, planted.axis_id)
        (row,) = ask(
            warehouse.root, "select auroc from v_auroc where axis_id = ?", [planted.axis_id]
        )
        assert row["auroc"] > 0.8
        of_axes = [r for r in check(warehouse.root).to_pylist() if r["check"].startswith("axes_")]
        assert of_axes and not [row for row in of_axes if row["row_count"]]


@pytest.mark.parametrize(
    ("hook", "site", "expected"),
    [
        ("blocks.2.hook_resid_post", None, (2, "resid_post")),
        # What a block takes in is what the one before it puts out.
        ("blocks.2.hook_resid_pre", None, (1, "resid_post")),
        ("blocks.2.hook_resid_pre", "resid_pre", (2, "resid_pre")),
        ("blocks.1.hook_resid_post", "resid_pre", (2, "resid_pre")),
        ("blocks.0.hook_resid_pre", "resid_pre", (0, "resid_pre")),
        ("blocks.1.hook_mlp_out", None, (1, "mlp_out")),
        ("blocks.0.hook_attn_out", "attn_out", (0, "attn_out")),
    ],
)
def test_a_hook_point_is_a_layer_and_site(warehouse, tmp_path, hook, site, expected):
    folder = save_sae(tmp_path / "made", random_rows(4, WIDTH), hook)
    (axis,) = bring(warehouse, folder, 1, site=site).axes
    assert (axis.layer, axis.site) == expected


def test_transcoders_and_configurations_before_version_6(warehouse, tmp_path):
    """A transcoder's decoder writes to another hook point than its encoder reads."""
    rows = random_rows(4, WIDTH)
    hooks = {"hook": "blocks.1.ln2.hook_normalized", "hook_out": "blocks.1.hook_mlp_out"}
    transcoder = save_sae(tmp_path / "transcoder", rows, **hooks, architecture="transcoder")
    assert open_sae(transcoder).hook == "blocks.1.hook_mlp_out"
    old = save_sae(tmp_path / "old", rows)
    config = json.loads((old / "cfg.json").read_text())
    del config["metadata"]
    config |= {"hook_point": "blocks.2.hook_resid_pre", "model_name": "alpha"}
    (old / "cfg.json").write_text(json.dumps(config))
    assert [(axis.layer, axis.model) for axis in bring(warehouse, old, 0).axes] == [(1, "alpha")]


@pytest.mark.parametrize(
    ("made", "asked", "error", "message"),
    [
        ({}, {}, AxisError, "choose some of its 4 features with --features 12,40-50"),
        ({}, {"features": (1, 4)}, AxisError, "no feature 4, counted from 0"),
        ({}, {"features": (-1,)}, AxisError, "no feature -1"),
        ({}, {"features": (1,), "site": "mlp_out"}, AxisError, "resid_post, and --site mlp_out"),
        ({}, {"features": (1,), "model": "beta"}, AxisError, "16 numbers, and the blocks of beta"),
        ({"hook": "blocks.9.hook_resid_post"}, {"features": (1,)}, LayerError, "layer 9 of alpha"),
        ({"hook": "blocks.0.hook_resid_pre"}, {"features": (1,)}, AxisError, "of the embedding"),
        ({"hook": "blocks.1.attn.hook_z"}, {"features": (1,)}, AxisError, "hook_z, which is not a"),
        ({"hook": ""}, {"features": (1,)}, AxisError, "of no hook point"),
        ({"normalize_activations": "covariance_whitening"}, {"features": (1,)}, AxisError, "fold"),
        ({"rows": np.zeros((4, WIDTH))}, {"features": (1,)}, AxisError, "is zero"),
        ({"rows": np.full((4, WIDTH), np.nan)}, {"features": (1,)}, NonFiniteError, "NaN"),
    ],
)
def test_what_is_no_axis_is_one_line(warehouse, tmp_path, made, asked, error, message):
    rows = made.pop("rows", random_rows(4, WIDTH))
    folder = save_sae(tmp_path / "made", rows, **made)
    with pytest.raises(error, match=message):
        import_axes(warehouse, folder, ImportRequest(**asked))


def test_broken_files_and_features_of_another_format(warehouse, tmp_path):
    folder = save_sae(tmp_path / "made", random_rows(4, WIDTH))
    weights = folder / "sae_weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(AxesError, match="has no matrix W_dec"):
        bring(warehouse, folder, 1)
    (folder / "cfg.json").write_text("{")
    with pytest.raises(AxesError, match="of no hook point"):
        bring(warehouse, folder, 1)
    np.save(tmp_path / "one.npy", np.ones(WIDTH))
    with pytest.raises(AxesError, match="is not a sparse autoencoder, of which --features chooses"):
        bring(warehouse, tmp_path / "one.npy", 1)
