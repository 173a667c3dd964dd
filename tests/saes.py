"""Tiny sparse autoencoders, laid out as SAELens 6.54 saves them.

tests/peers/test_sae_lens.py compares the layout with what its own code writes.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file


def save_sae(
    folder: Path,
    decoder: np.ndarray,
    hook: str = "blocks.1.hook_resid_post",
    *,
    dtype: torch.dtype = torch.float32,
    hook_out: str | None = None,
    **config: object,
) -> Path:
    """A standard autoencoder of the model `alpha` with these decoder rows `[d_sae, d_in]`."""
    folder.mkdir(parents=True)
    rows = torch.from_numpy(np.asarray(decoder)).to(dtype)
    feature_count, width = rows.shape
    weights = {
        "W_dec": rows.contiguous(),
        "W_enc": rows.T.contiguous(),
        "b_dec": torch.zeros(width, dtype=dtype),
        "b_enc": torch.zeros(feature_count, dtype=dtype),
    }
    save_file(weights, folder / "sae_weights.safetensors")
    metadata = {"sae_lens_version": "6.54.12", "model_name": "alpha", "hook_name": hook}
    written = {
        "d_in": width,
        "d_sae": feature_count,
        "dtype": str(dtype).removeprefix("torch."),
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": metadata if hook_out is None else {**metadata, "hook_name_out": hook_out},
        "architecture": "standard",
    }
    (folder / "cfg.json").write_text(json.dumps({**written, **config}))
    return folder


def random_rows(feature_count: int, width: int, seed: int = 0) -> np.ndarray:
    """Decoder rows of different lengths, float32."""
    return np.random.default_rng(seed).normal(size=(feature_count, width)).astype(np.float32)
