"""Checkpoints whose weights are stored quantised (FP8, AWQ, GPTQ, compressed-tensors, ...).

transformers loads them by the `quantization_config` of their config.json, with packages and
hardware that depend on the method. Whether this machine has them is asked before any weight is
downloaded or read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from axes.ingest.models.config import loading
from axes.warehouse.errors import ModelError


def quantization_name(described: Mapping[str, Any]) -> str:
    """How a `quantization_config` says that weights are stored: the method, and its bits if one.

    >>> quantization_name({"quant_method": "fp8"})
    'fp8'
    >>> quantization_name({"quant_method": "gptq", "bits": 4})
    'gptq-4bit'
    """
    name = str(described.get("quant_method", "bitsandbytes"))
    loaded = [bits for bits in (4, 8) if described.get(f"load_in_{bits}bit")]
    bits = loaded[0] if loaded else described.get("bits")
    return f"{name}-{bits}bit" if isinstance(bits, int) else name


def runnable_quantization(config: Path, model: str) -> str | None:
    """How the weights of a config.json are run here; None where they are not quantised.

    The name ends with `-dequantized` where this machine has no kernels for the method and
    transformers runs the weights without it. Raises `ModelError` in one line where a package or a
    GPU is missing, and where the file cannot be read.
    """
    described = _quantization_config(config)
    if described is None:
        return None
    from transformers.quantizers import AutoHfQuantizer

    name = quantization_name(described)
    with loading(f"{model} is quantised ({name}) and cannot be run here"):
        try:
            quantizer = AutoHfQuantizer.from_config(dict(described), pre_quantized=True)
        except (TypeError, AttributeError) as error:
            raise ModelError(f"{config}: quantization_config cannot be read: {error}") from error
        quantizer.validate_environment()
    is_dequantized = getattr(quantizer.quantization_config, "dequantize", False)
    return f"{name}-dequantized" if is_dequantized else name


def _quantization_config(config: Path) -> Mapping[str, Any] | None:
    try:
        described = json.loads(config.read_text())
        found = described.get("quantization_config")
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise ModelError(f"{config} cannot be read: {error}") from error
    if found is None or isinstance(found, dict):
        return found
    raise ModelError(f"{config}: quantization_config cannot be read: {found!r:.40}")
