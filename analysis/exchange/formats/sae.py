"""Sparse autoencoders as SAELens saves them: a folder with cfg.json and sae_weights.safetensors.

Feature n is row n of `W_dec` `[d_sae, d_in]`: what it adds to the model's activations at the hook
point of the configuration, `metadata.hook_name` (before version 6 `hook_name`, `hook_point`), or
of a transcoder `hook_name_out`. Names are TransformerLens's: `blocks.8.hook_resid_post` is what
block 8 puts out, and `blocks.8.hook_resid_pre` what block 7 does.

https://github.com/decoderesearch/SAELens
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from axes.analysis.exchange.formats.contents import BLOCK, RESID_PRE, Contents, layer_of
from axes.analysis.exchange.formats.json_files import read_object
from axes.warehouse.errors import AxisError
from axes.warehouse.names import RESID_POST, SITES

PREFIX = "sae:"
_CONFIG, _WEIGHTS, _DECODER = "cfg.json", "sae_weights.safetensors", "W_dec"
_HOOK = re.compile(r"blocks\.(\d+)\.hook_(\w+)")


@dataclass(frozen=True)
class SparseAutoencoder:
    """Where the decoder's rows lie: `site` of a block; `block` is -1 for the embedding."""

    path: Path
    hook: str
    block: int
    site: str
    feature_count: int
    d_model: int
    model_name: str | None

    def layer_at(self, site: str) -> int | None:
        """The layer of its rows at a site, below 0 for the embedding; None at another site."""
        is_residual = self.site == RESID_POST and site in (RESID_POST, RESID_PRE)
        return layer_of(self.block, BLOCK, site) if site == self.site or is_residual else None

    def decoder(
        self, features: Sequence[int] | None = None
    ) -> Float[np.ndarray, "feature d_model"]:
        """The rows of these features (None: of all), float32; others are not read."""
        from safetensors import safe_open

        with safe_open(self.path / _WEIGHTS, framework="pt") as file:
            if features is None:
                return file.get_tensor(_DECODER).float().numpy()
            rows = file.get_slice(_DECODER)
            return np.concatenate([rows[n : n + 1].float().numpy() for n in features])


def is_sae(path: Path) -> bool:
    """Whether it is a folder with an autoencoder's two files."""
    return (path / _CONFIG).is_file() and (path / _WEIGHTS).is_file()


def sae_folder(source: str) -> Path:
    """The folder of `sae:FOLDER` or FOLDER; raises `AxisError` where there is no autoencoder."""
    path = Path(source.removeprefix(PREFIX)).expanduser()
    if not is_sae(path):
        raise AxisError(f"{path} is not a sparse autoencoder: it has no {_CONFIG}, {_WEIGHTS}")
    return path


def open_sae(path: Path) -> SparseAutoencoder:
    """Read the configuration; raises `AxisError` for a hook point that is not a site."""
    from safetensors import SafetensorError, safe_open

    config = read_object(path / _CONFIG) or {}
    stated = config.get("metadata", config)
    metadata = stated if isinstance(stated, dict) else {}
    names = ("hook_name_out", "hook_name", "hook_point")
    hook = next((str(metadata[name]) for name in names if metadata.get(name)), "")
    match = _HOOK.fullmatch(hook)
    if match is None or match[2] not in SITES:
        raise AxisError(
            f"{path} is of {hook or 'no hook point'}, which is not a site of the warehouse: "
            f"blocks.N.hook_SITE with {', '.join(SITES)} are"
        )
    if config.get("normalize_activations") == "covariance_whitening":
        raise AxisError(f"{path} is of whitened activations: fold_activation_whitening() first")
    try:
        with safe_open(path / _WEIGHTS, framework="pt") as file:
            feature_count, d_model = file.get_slice(_DECODER).get_shape()
    except (SafetensorError, ValueError) as error:
        raise AxisError(f"{path / _WEIGHTS} has no matrix {_DECODER} ({error})") from error
    is_input = match[2] == RESID_PRE
    return SparseAutoencoder(
        path=path,
        hook=hook,
        block=int(match[1]) - is_input,
        site=RESID_POST if is_input else match[2],
        feature_count=feature_count,
        d_model=d_model,
        model_name=metadata.get("model_name"),
    )


def read_features(path: Path, features: Sequence[int] | None) -> Contents:
    """The decoder rows of some features as directions; raises `AxisError` for one it has not."""
    sae = open_sae(path)
    some = f"choose some of its {sae.feature_count:,} features with --features 12,40-50"
    if not features:
        raise AxisError(f"{path} is a sparse autoencoder: {some}")
    if missing := [n for n in features if not 0 <= n < sae.feature_count]:
        raise AxisError(f"{path} has no feature {missing[0]}, counted from 0: {some}")
    return Contents(
        vectors=dict(zip(features, sae.decoder(features), strict=True)),
        convention=BLOCK,
        model_name=sae.model_name,
        method="sae",
        site=sae.site,
        number=sae.block,
    )
