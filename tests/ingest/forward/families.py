"""Tiny models of every kind of architecture, and what their blocks put out."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from types import SimpleNamespace
from typing import Any

import torch
from transformers import Cache

from axes.ingest.forward.batching import pad
from axes.ingest.forward.recording import block_points, recorded
from axes.ingest.models.load import LoadedModel, find_blocks
from tests.tiny_models import tiny_model

MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}

# model_type -> sizes that differ from the common ones.
FAMILIES: dict[str, dict] = {
    "bloom": {},
    "cohere": {},
    "deepseek_v3": {
        "kv_lora_rank": 8,
        "q_lora_rank": 8,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 8,
        "v_head_dim": 8,
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "n_group": 1,
        "topk_group": 1,
        "moe_intermediate_size": 16,
        "first_k_dense_replace": 1,
        "num_key_value_heads": 4,
    },
    "falcon": {},
    "gemma": {"head_dim": 8},
    "gemma2": {"head_dim": 8},
    "gemma3_text": {"head_dim": 8},
    "glm4": {"head_dim": 8},
    "gpt2": {},
    "gpt_bigcode": {},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]], "num_layers": 4},
    "gpt_neox": {},
    "gpt_oss": {"head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2},
    "gptj": {"rotary_dim": 4},
    "granite": {},
    "llama": {},
    "mamba": {},
    "mistral": {},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "mpt": {},
    "olmo2": {},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "phi": {},
    "phi3": {},
    "qwen2": {},
    "qwen2_moe": {**MOE, "shared_expert_intermediate_size": 16},
    "qwen3": {"head_dim": 8},
    "qwen3_moe": {**MOE, "head_dim": 8},
    "smollm3": {},
    "stablelm": {},
    "starcoder2": {},
}
# One of each kind; those with attention take left padding, a state-space model carries it into its
# state.
KINDS = ("gpt_neox", "llama", "mistral", "qwen2", "gemma3_text", "gpt2", "bloom", "mamba")
LEFT_PADDED = KINDS[:-1]

ROWS = [[1, *range(5, 5 + count)] for count in (9, 3, 6)]


def loaded_tiny(family: str, **sizes: Any) -> LoadedModel:
    """A model whose biases and norm gains are not at their initial zeros and ones."""
    model: Any = tiny_model(family, **{**FAMILIES[family], **sizes})
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight), alpha=0.1)
    return LoadedModel(
        spec=SimpleNamespace(name=f"tiny-{family}"),
        identity=None,
        model=model.requires_grad_(False),
        tokenizer=None,
        blocks=find_blocks(model),
        d_model=model.config.get_text_config().hidden_size,
    )


@cache
def shared_tiny(family: str) -> LoadedModel:
    """The same for every test: not to be changed."""
    return loaded_tiny(family)


def block_outputs(
    loaded: LoadedModel,
    rows: Sequence[list[int]] = ROWS,
    side: str = "right",
    cache: Cache | None = None,
) -> list[torch.Tensor]:
    """Per row the recorded `[layer, position, d_model]`, padding cut away."""
    points = block_points(loaded.blocks, range(loaded.layer_count))
    tokens, mask = pad(rows, 0, side=side)
    found = recorded(loaded.model, points, tokens, mask, cache=cache)
    stacked = torch.stack([found[point] for point in points], dim=1)
    return [stacked[index][:, mask[index]] for index in range(len(rows))]
