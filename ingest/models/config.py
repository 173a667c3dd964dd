"""What a model folder's configuration says, and the model's shape with no weights loaded."""

from __future__ import annotations

import inspect
import json
import os
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from axes.ingest.models.registry import DTYPES
from axes.warehouse.errors import ModelError
from axes.warehouse.progress import quiet_transformers

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

# Of NVIDIA's driver, under WSL and on Jetson boards, and of AMD's.
_DEVICE_FILES = ("/dev/nvidiactl", "/dev/dxg", "/dev/nvmap", "/dev/kfd")


def skeleton(folder: Path, dtype: str) -> PreTrainedModel:
    """The model of a folder's configuration with no weights behind it, which takes no memory."""
    config = read_config(folder)
    with loading(f"{folder} holds no language model"):
        return without_weights(config, dtype)


def without_weights(config: PreTrainedConfig, dtype: str) -> PreTrainedModel:
    """The model of a configuration on the meta device."""
    import torch

    with torch.device("meta"):
        model = model_class(config).from_config(
            config, dtype=getattr(torch, dtype), trust_remote_code=False
        )
    return text_model(model)


def model_class(config: PreTrainedConfig) -> Any:
    """The class of transformers that loads the model: of causal or of vision-language models.

    The latter where the checkpoint names it, or no causal one exists. Raises `ModelError` for one
    that cannot run on text alone, or attends to later tokens.
    """
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING,
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    )

    kind, text_config = type(config), config.get_text_config()
    if kind not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        return AutoModelForCausalLM
    model: Any = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING[kind]
    _, first_input, *_ = inspect.signature(model.forward).parameters
    crosses = config.is_encoder_decoder or getattr(text_config, "cross_attention_layers", None)
    if crosses or first_input != "input_ids":
        raise ModelError(f"{config.model_type} does not run on text alone")
    if text_config is not config and getattr(text_config, "use_bidirectional_attention", 0) is True:
        raise ModelError(f"{config.model_type} attends to later tokens of a prompt: not causal")
    # Some causal classes of such a configuration have no place for the vision weights.
    is_named = model.__name__ in (config.architectures or ())
    is_causal = kind in MODEL_FOR_CAUSAL_LM_MAPPING and not is_named
    return AutoModelForCausalLM if is_causal else AutoModelForImageTextToText


def text_model(model: PreTrainedModel) -> PreTrainedModel:
    """The causal language model within a vision-language one, where it is complete (Llama 4)."""
    inner = getattr(model, "language_model", None)
    return model if inner is None or inner.get_output_embeddings() is None else inner


@contextmanager
def loading(failure: str) -> Iterator[None]:
    """What transformers raises in the body becomes a `ModelError` that begins with `failure`."""
    from safetensors import SafetensorError

    quiet_transformers()
    # RuntimeError: torch refuses a device, or gguf a quantisation.
    try:
        yield
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"{failure}: {one_line(error)}") from error


def read_weights(kind: Any, folder: Path, **options: Any) -> Any:
    """The model that a class of transformers loads from a folder, each weight from its file.

    transformers draws weights that the file lacks at random and leaves out those that the model
    has no place for. Raises `ModelError` with their names instead. The prefix that torch.compile
    puts before every name is taken off.
    """
    model, report = kind.from_pretrained(
        folder,
        trust_remote_code=False,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # Reported with their names, and refused here.
        key_mapping={r"(^|\.)_orig_mod\.": r"\1"},
        **options,
    )
    require_complete(report, folder / options.get("gguf_file", ""))
    return model


def require_complete(report: Mapping[str, Collection[Any]], place: Path) -> None:
    """Raise `ModelError` where a loading report names weights that do not fit the model."""
    faults = []
    for fault in ("missing", "unexpected", "mismatched"):
        keys = sorted(key if isinstance(key, str) else key[0] for key in report[f"{fault}_keys"])
        if keys:
            more = ", ..." if len(keys) > 3 else ""
            faults.append(f"{len(keys)} {fault} ({', '.join(keys[:3])}{more})")
    if faults:
        raise ModelError(
            f"the weights in {place} are not those of the model that it describes: "
            f"{'; '.join(faults)}; save or convert the complete model again"
        )


def read_config(folder: Path, **options: str) -> PreTrainedConfig:
    """The model's configuration; `options` are those of transformers."""
    from transformers import AutoConfig

    with loading(f"{folder}: config.json cannot be read"):
        return AutoConfig.from_pretrained(folder, trust_remote_code=False, **options)


def load_tokenizer(folder: Path, **options: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a local model folder; `options` are those of transformers."""
    from transformers import AutoTokenizer

    with loading(f"no tokenizer can be loaded from {folder}"):
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, **options)


def context_length(folder: Path) -> int | None:
    """Longest prompt in tokens by the model's configuration; None where it states no limit."""
    config = json.loads((folder / "config.json").read_text())
    config = config.get("text_config", config)
    return config.get("max_position_embeddings") or config.get("n_positions")


def default_dtype(folder: Path, device: str) -> str:
    """float32 on the CPU; on an accelerator what the checkpoint is stored in."""
    if device == "cpu":
        return "float32"
    config = json.loads((folder / "config.json").read_text())
    stored = config.get("dtype") or config.get("torch_dtype") or "float32"
    return stored if stored in DTYPES else "float32"


def default_device() -> str:
    """cuda where torch sees one, else cpu; on Linux without a device file, torch is not asked."""
    if sys.platform == "linux" and not any(map(os.path.exists, _DEVICE_FILES)):
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def one_line(error: object) -> str:
    """The message of an error of another library, in one line of at most 300 characters."""
    return " ".join(str(error).split())[:300]
