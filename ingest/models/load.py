"""Load a model and its tokenizer for reading activations, and find its blocks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from axes.ingest.models.config import (
    load_tokenizer,
    loading,
    model_class,
    read_config,
    read_weights,
    require_complete,
    text_model,
)
from axes.ingest.models.download import fetch_adapter
from axes.ingest.models.registry import VLLM
from axes.warehouse.errors import LayerError, ModelError, NonFiniteError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from axes.ingest.models.identity import ModelIdentity
    from axes.ingest.models.registry import ModelSpec


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to run; `blocks` are its `layer_count` transformer blocks in order."""

    spec: ModelSpec
    identity: ModelIdentity
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    blocks: Sequence[torch.nn.Module]
    d_model: int

    @property
    def layer_count(self) -> int:
        return len(self.blocks)

    @property
    def vocab_size(self) -> int:
        """Number of tokens that the model has, by its configuration."""
        return self.model.config.get_text_config().vocab_size

    @property
    def device(self) -> torch.device:
        return self.model.device


def load(
    spec: ModelSpec,
    folder: Path,
    identity: ModelIdentity,
    device: str,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> LoadedModel:
    """Load weights and tokenizer for reading activations; no code of the repository is run.

    `device` is a torch device, or `auto` to spread a large model over all accelerators.
    A `tokenizer` that was read already is taken as it is: reading one takes up to a second.
    """
    import torch
    from transformers import BitsAndBytesConfig

    options: dict[str, Any] = {"attn_implementation": identity.attention}
    if spec.quantization is not None:
        _require_package("bitsandbytes", "quantization")
        precision: Any = {f"load_in_{spec.quantization}": True}
        options["quantization_config"] = BitsAndBytesConfig(**precision)
    if spec.adapter is not None:
        _require_package("peft", "adapters")
    if spec.engine == VLLM:
        device, options = "meta", {}  # It reads the weights itself.
    if device in ("auto", "meta") or identity.quantization is not None:
        options["device_map"] = device
    with loading(f"{spec.name} cannot be loaded from {folder}"):
        model: PreTrainedModel = read_weights(
            model_class(read_config(folder)),
            folder,
            dtype=getattr(torch, identity.dtype),
            use_safetensors=True,
            **options,
        )
        if "device_map" not in options:
            model = model.to(torch.device(device))  # type: ignore[arg-type]
        if spec.adapter is not None:
            adapter = fetch_adapter(spec.adapter)
            if (report := model.load_adapter(str(adapter))) is not None:
                require_complete(vars(report), adapter)
    model = text_model(model)
    return LoadedModel(
        spec=spec,
        identity=identity,
        model=model.eval().requires_grad_(False),
        tokenizer=load_tokenizer(folder) if tokenizer is None else tokenizer,
        blocks=find_blocks(model, spec.blocks),
        d_model=model.config.get_text_config().hidden_size,
    )


def find_blocks(model: PreTrainedModel, path: str | None = None) -> Sequence[torch.nn.Module]:
    """The list of transformer blocks: the outermost module list of `num_hidden_layers` entries.

    Found by shape rather than by class name, so that a family needs no entry here; `path` names
    it where that is not exactly one list. Of a vision-language model they are in its decoder.
    Raises `ModelError` with the candidates.
    """
    import torch

    text_config = model.config.get_text_config()
    layer_count = text_config.num_hidden_layers
    lists = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.ModuleList) and len(module) > 1
    }
    if path is not None:
        if path not in lists:
            raise ModelError(
                f"{type(model).__name__} has no list of blocks {path}: "
                f"it has {', '.join(lists) or 'none'}"
            )
        return _distinct(path, lists[path])
    fitting: dict[str, torch.nn.ModuleList] = {}
    for name, module in lists.items():
        is_inside = any(name.startswith(f"{outer}.") for outer in fitting)
        if len(module) == layer_count and not is_inside:
            fitting[name] = module
    if len(fitting) > 1 and text_config is not model.config:
        in_decoder = set(model.get_decoder().modules())
        fitting = {name: module for name, module in fitting.items() if module in in_decoder}
    if len(fitting) != 1:
        raise ModelError(
            f"{type(model).__name__}: expected one list of {layer_count} blocks, found "
            f"{', '.join(fitting) or 'none'}; name it with --blocks, one of {', '.join(lists)}"
        )
    return _distinct(*fitting.popitem())


def blocks_path(loaded: LoadedModel) -> str:
    """Where in the model the blocks are, such as `model.layers`."""
    paths = {id(module): path for path, module in loaded.model.named_modules()}
    return paths[id(loaded.blocks[0])].rpartition(".")[0]


def _distinct(path: str, blocks: torch.nn.ModuleList) -> Sequence[torch.nn.Module]:
    if len(set(blocks)) != len(blocks):
        raise ModelError(f"{path} runs one block several times: its layers cannot be distinguished")
    return list(blocks)


def require_layers(name: str, layer_count: int, layers: Sequence[int]) -> None:
    """Raise `LayerError` for the first layer that the model does not have."""
    for layer in layers:
        if not 0 <= layer < layer_count:
            raise LayerError(
                f"layer {layer} of {name} does not exist: "
                f"it has {layer_count} (0 to {layer_count - 1})"
            )


def non_finite(loaded: LoadedModel, place: str) -> NonFiniteError:
    """The error for NaN or infinity in what a model gives `at layer 3 for prompt ID`, or so."""
    return NonFiniteError(
        f"{loaded.spec.name} gives NaN or infinity {place} in {loaded.identity.dtype}: "
        "try --dtype float32 or bfloat16"
    )


def model_row(loaded: LoadedModel, run_id: str) -> dict[str, object]:
    """The row of the table `models` for a loaded model."""
    config = loaded.model.config
    text_config = config.get_text_config()
    spec = loaded.spec
    return {
        **asdict(loaded.identity),
        "model": spec.name,
        "source": ", ".join(spec.wheels) if spec.source == "pypi" else spec.source,
        "revision": spec.revision,
        "architecture": config.model_type,
        "d_model": loaded.d_model,
        "layer_count": loaded.layer_count,
        "parameter_count": sum(weight.numel() for weight in loaded.model.parameters()),
        "context_length": getattr(text_config, "max_position_embeddings", None),
        "adapter": spec.adapter,
        "blocks": spec.blocks,
        "model_group": spec.group,
        "is_reference": spec.is_reference,
        "license": spec.license,
        "run_id": run_id,
    }


def require_engine(spec: ModelSpec, sites: Sequence[str] = ()) -> None:
    """Raise `ModelError` where the engine is not installed, or cannot do what is asked."""
    if spec.engine == VLLM:
        _require_package("vllm", "vllm")
        options = ("adapter", "quantization", "attention", "blocks")
        refused = [f"--{option}" for option in options if getattr(spec, option) is not None]
        refused += [f"--site {site}" for site in sites if site not in ("resid_post", "resid_pre")]
        if refused:
            raise ModelError(f"--engine vllm does not go with {refused[0]}: leave one of them out")


def import_vllm() -> Any:
    """The package vllm, which logs errors alone and sends no usage statistics."""
    # On a CPU it takes 4 GiB, else nearly all; its core runs in this process, with its errors.
    defaults = {"NO_USAGE_STATS": "1", "LOGGING_LEVEL": "ERROR", "CPU_KVCACHE_SPACE": "4"}
    for name, value in defaults.items():
        os.environ.setdefault(f"VLLM_{name}", value)
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    return import_module("vllm")


def _require_package(name: str, extra: str) -> None:
    if find_spec(name) is None:
        raise ModelError(f"{name} is not installed: pip install 'safety-axes[{extra}]'")
