"""What a model is, exactly, read from its files before it is loaded.

Its `model_id` is a hash of name, revision, weights, configuration, adapter, tokenizer, template and
numerics, so that rows of two versions can never mix.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from axes.ingest.models.config import skeleton
from axes.ingest.models.download import (
    ADAPTER_FILES,
    CONVERSION,
    fetch_adapter,
    file_hash,
    files_hash,
    gguf_sha256,
    remember,
)
from axes.ingest.models.hub import weight_files
from axes.ingest.models.load import import_vllm
from axes.ingest.models.quantized import runnable_quantization
from axes.ingest.models.registry import VLLM, ModelSpec
from axes.warehouse.errors import ModelError
from axes.warehouse.writer import content_key

_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
)


@dataclass(frozen=True)
class ModelIdentity:
    """What a model is, read from its files; hashes are SHA-256 in hex.

    `quantization` is how the weights are held: as loading them was asked for, else as stored.
    """

    model_id: str
    dtype: str
    quantization: str | None
    attention: str
    weights_hash: str
    adapter_hash: str | None
    tokenizer_hash: str
    template_hash: str | None


def identify(spec: ModelSpec, folder: Path, dtype: str) -> ModelIdentity:
    """Hash the model's files, reading no weights.

    Raises `ModelError` where files are missing, and for quantised weights that this machine cannot
    run.
    """
    weights = weight_files(folder)
    config = folder / "config.json"
    missing = [path.name for path in (config, *weights) if not path.is_file()]
    if missing:
        raise ModelError(
            f"{folder} holds no model, {', '.join(missing)} missing: config.json and "
            "model.safetensors, or every shard of its index, are expected "
            "(pickled weights are not read)"
        )
    if (folder / "adapter_config.json").exists():
        raise ModelError(
            f"{folder} holds adapter_config.json, which would load an adapter over these weights: "
            "move it away, or give the model's folder and --adapter"
        )
    tokenizer = [folder / name for name in _TOKENIZER_FILES if (folder / name).exists()]
    if not tokenizer:
        raise ModelError(f"{folder} holds no tokenizer (tokenizer.json or tokenizer.model)")
    stored = runnable_quantization(config, spec.name)
    if stored is not None and spec.quantization is not None:
        raise ModelError(f"{spec.name} is quantised already ({stored}): leave --quantization out")
    quantization = spec.quantization or stored
    template = _chat_template(folder)
    # Weights, adapter, tokenizer and template, in the order of the fields.
    sha256 = gguf_sha256(spec)
    converted = f"{CONVERSION} {sha256}" if sha256 else None
    hashes = (
        _text_hash(converted) if converted else _weights_hash(weights, config),
        None if spec.adapter is None else _adapter_hash(spec.adapter),
        _text_hash(f"{converted} tokenizer") if converted else files_hash(tokenizer),
        _text_hash(template) if template else None,
    )
    engine = f"vllm-{import_vllm().__version__}" if spec.engine == VLLM else None
    attention = engine or spec.attention or _default_attention(folder, dtype)
    numerics = (dtype, quantization, attention, spec.blocks)
    model_id = content_key(spec.name, spec.revision, hashes, numerics)
    return ModelIdentity(model_id, dtype, quantization, attention, *hashes)


def _weights_hash(weights: Iterable[Path], config: Path) -> str:
    """Of the weight files and what the configuration says of the model.

    The version of transformers that wrote it says nothing.
    """
    try:
        described = json.loads(config.read_text())
        described.pop("transformers_version", None)
    except (ValueError, AttributeError, RecursionError) as error:
        raise ModelError(f"{config} cannot be read: {error}") from error
    return _text_hash(files_hash(weights) + json.dumps(described, sort_keys=True))


def _text_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _adapter_hash(adapter: str) -> str:
    folder = fetch_adapter(adapter)
    return files_hash(folder / name for name in ADAPTER_FILES)


def _default_attention(folder: Path, dtype: str) -> str:
    """The implementation that transformers takes for this model by default.

    It depends on the model's class and on the version of transformers, and is looked up once.
    """
    config = folder / "config.json"
    key = f"{file_hash(config)} {dtype}"

    def look_up() -> str:
        return str(skeleton(folder, dtype).config._attn_implementation)

    return remember("attention", key, version("transformers"), look_up)


def _chat_template(folder: Path) -> str | None:
    jinja = folder / "chat_template.jinja"
    if jinja.exists():
        return jinja.read_text()
    config = folder / "tokenizer_config.json"
    template = json.loads(config.read_text()).get("chat_template") if config.exists() else None
    return template if template is None or isinstance(template, str) else json.dumps(template)
