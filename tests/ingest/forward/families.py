"""Tiny models of every kind of architecture, and what their blocks put out."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForImageTextToText, Cache

from axes.ingest.forward.batching import pad
from axes.ingest.forward.recording import block_points, recorded
from axes.ingest.models.load import LoadedModel, find_blocks
from tests.tiny_models import SIZES, byte_tokenizer, tiny_model

MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
LOCAL_MOE = {"num_local_experts": 4, "num_experts_per_tok": 2}
# The first block is dense.
ROUTED_MOE = {
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "moe_intermediate_size": 16,
    "first_k_dense_replace": 1,
}
LATENT = {
    "kv_lora_rank": 8,
    "q_lora_rank": 8,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "num_key_value_heads": 4,
}
LINEAR = {
    "head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "layer_types": ["linear_attention", "full_attention"] * 2,
}
MAMBA2 = {
    "mamba_n_heads": 8,
    "mamba_d_head": 8,
    "mamba_d_state": 8,
    "mamba_n_groups": 1,
    "mamba_chunk_size": 16,
}

# model_type -> sizes that differ from the common ones.
WITH_ATTENTION: dict[str, dict] = {
    "arcee": {},
    "bloom": {},
    "cohere": {},
    "cohere2": {},
    "deepseek_v2": {**ROUTED_MOE, **LATENT},
    "deepseek_v3": {**ROUTED_MOE, **LATENT},
    "ernie4_5": {"head_dim": 8},
    "exaone4": {},
    "falcon": {},
    "gemma": {"head_dim": 8},
    "gemma2": {"head_dim": 8},
    "gemma3_text": {"head_dim": 8},
    "glm4": {"head_dim": 8},
    "glm4_moe": {**ROUTED_MOE, "head_dim": 8},
    "gpt2": {},
    "gpt_bigcode": {},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]], "num_layers": 4},
    "gpt_neox": {},
    "gpt_oss": {**LOCAL_MOE, "head_dim": 8},
    "gptj": {"rotary_dim": 4},
    "granite": {},
    "granitemoe": LOCAL_MOE,
    "hunyuan_v1_dense": {"head_dim": 8},
    "llama": {},
    "llama4_text": {"num_local_experts": 4, "head_dim": 8, "intermediate_size_mlp": 48},
    "minimax_m2": {**LOCAL_MOE, "head_dim": 8},
    "mistral": {},
    "mixtral": LOCAL_MOE,
    "mpt": {},
    "nemotron": {},
    "olmo": {},
    "olmo2": {},
    "olmo3": {},
    "olmoe": MOE,
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "phi": {},
    "phi3": {},
    "phimoe": LOCAL_MOE,
    "qwen2": {},
    "qwen2_moe": {**MOE, "shared_expert_intermediate_size": 16},
    "qwen3": {"head_dim": 8},
    "qwen3_5_text": LINEAR,
    "qwen3_moe": {**MOE, "head_dim": 8},
    "qwen3_next": {**LINEAR, **MOE, "shared_expert_intermediate_size": 16},
    "seed_oss": {"head_dim": 8},
    "smollm3": {},
    "stablelm": {},
    "starcoder2": {},
}
# State-space and hybrid families, and one that scales what it adds: their blocks 0 and 2 do not add
# one attention and one MLP output.
WITHOUT: dict[str, dict] = {
    "bamba": {**MAMBA2, "attn_layer_indices": [1, 3]},
    "falcon_h1": {**MAMBA2, "mamba_d_ssm": 64, "head_dim": 8},
    "falcon_mamba": {"state_size": 8},
    "gemma4_text": {"head_dim": 8, "global_head_dim": 8, "hidden_size_per_layer_input": 0},
    "granitemoehybrid": {
        **MAMBA2,
        **LOCAL_MOE,
        "layer_types": ["mamba", "attention"] * 2,
        "shared_intermediate_size": 16,
    },
    "jamba": {
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "mamba_d_state": 8,
        "mamba_dt_rank": 4,
    },
    "lfm2": {"layer_types": ["conv", "full_attention"] * 2},
    "lfm2_moe": {
        **MOE,
        "layer_types": ["conv", "full_attention"] * 2,
        "num_dense_layers": 1,
    },
    "mamba": {},
    "mamba2": {"num_heads": 8, "head_dim": 8, "state_size": 8, "n_groups": 1, "chunk_size": 16},
    "nemotron_h": {
        **ROUTED_MOE,
        "layers_block_type": ["mamba", "attention", "mlp", "moe"],
        "mamba_num_heads": 8,
        "mamba_head_dim": 8,
        "ssm_state_size": 8,
        "n_groups": 1,
        "chunk_size": 16,
        "head_dim": 8,
        "moe_shared_expert_intermediate_size": 16,
    },
    "recurrent_gemma": {"lru_width": 32, "head_dim": 8, "attention_window_size": 64},
    "xlstm": {"num_heads": 4},
    "zamba2": {
        "layers_block_type": ["mamba", "hybrid"] * 2,
        "hybrid_layer_ids": [1, 3],
        "num_mem_blocks": 1,
        "adapter_rank": 4,
        "attention_head_dim": 16,
        "n_mamba_heads": 8,
        "mamba_headdim": 8,
        "mamba_d_state": 8,
        "mamba_ngroups": 1,
        "chunk_size": 16,
    },
}
FAMILIES = {**WITH_ATTENTION, **WITHOUT}

# Vision-language: the vision tower has as many blocks as the decoder.
_TEXT = {**SIZES, "head_dim": 8}
_ROTARY = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}
_TOWER = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
_QWEN = {"depth": 4, "hidden_size": 16, "out_hidden_size": 32, "num_heads": 2}
_QWEN3 = {**_QWEN, "intermediate_size": 16, "num_position_embeddings": 16}
_PIXTRAL = {"model_type": "pixtral", **_TOWER, "head_dim": 8}
VISION: dict[str, dict] = {
    "gemma3": {"text_config": _TEXT, "vision_config": _TOWER, "mm_tokens_per_image": 4},
    "gemma4": {
        "text_config": {**_TEXT, "global_head_dim": 8, "hidden_size_per_layer_input": 0},
        "vision_config": {
            **{name: _TOWER[name] for name in list(_TOWER)[:4]},
            "num_key_value_heads": 2,
            "head_dim": 8,
            "patch_size": 4,
            "position_embedding_size": 16,
        },
    },
    "glm4v": {
        "text_config": {**_TEXT, "rope_parameters": {**_ROTARY, "partial_rotary_factor": 1.0}},
        "vision_config": {**_QWEN, "intermediate_size": 16, "image_size": 28},
    },
    "internvl": {
        "text_config": {"model_type": "qwen2", **SIZES},
        "vision_config": {**_TOWER, "image_size": [28, 28], "patch_size": [14, 14]},
    },
    "llama4": {
        "text_config": {**_TEXT, "num_local_experts": 4, "intermediate_size_mlp": 48},
        "vision_config": {
            **_TOWER,
            "intermediate_size": 64,
            "vision_output_dim": 32,
            "projector_input_dim": 32,
            "projector_output_dim": 32,
        },
    },
    "mistral3": {"text_config": {"model_type": "mistral", **_TEXT}, "vision_config": _PIXTRAL},
    "qwen2_5_vl": {
        "text_config": {**_TEXT, "rope_parameters": _ROTARY},
        "vision_config": {**_QWEN, "intermediate_size": 16, "fullatt_block_indexes": [1]},
    },
    "qwen3_5": {"text_config": {**SIZES, **LINEAR}, "vision_config": _QWEN3},
    "qwen3_vl": {
        "text_config": {**_TEXT, "rope_parameters": _ROTARY},
        "vision_config": {**_QWEN3, "deepstack_visual_indexes": [1]},
    },
    "smolvlm": {
        "text_config": {"model_type": "llama", **_TEXT},
        "vision_config": _TOWER,
        "scale_factor": 2,
    },
}
# One of each kind; those with attention take left padding, a state-space model carries it into its
# state.
KINDS = ("gpt_neox", "llama", "mistral", "qwen2", "gemma3_text", "gpt2", "bloom", "mamba")
LEFT_PADDED = KINDS[:-1]

ROWS = [[1, *range(5, 5 + count)] for count in (9, 3, 6)]


def loaded_tiny(family: str, **sizes: Any) -> LoadedModel:
    """A model whose biases and norm gains are not at their initial zeros and ones."""
    model: Any = tiny_model(family, **{**FAMILIES[family], **sizes})
    _move(model)
    return LoadedModel(
        spec=SimpleNamespace(name=f"tiny-{family}"),
        identity=None,
        model=model.requires_grad_(False),
        tokenizer=None,
        blocks=find_blocks(model),
        d_model=model.config.get_text_config().hidden_size,
    )


def _move(model: torch.nn.Module) -> None:
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight), alpha=0.1)


def vision_model(family: str, **parts: Any) -> Any:
    """A vision-language model, in the same way; `parts` of its configuration as in `VISION`."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **copy.deepcopy(parts or VISION[family]))
    model = AutoModelForImageTextToText.from_config(config, dtype=torch.float32).eval()
    _move(model)
    return model


def save_vision(folder: Path, model: Any) -> Path:
    """The model with a tokenizer."""
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


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
