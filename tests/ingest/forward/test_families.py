"""Recording is exact on every kind of architecture: no family has an entry anywhere in the code."""

from __future__ import annotations

import pytest
import torch

from axes.ingest.forward.batching import pad
from axes.ingest.forward.recording import block_points, record, run_backbone
from axes.ingest.models.load import find_blocks
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

ROWS = [[1, *range(5, 5 + count)] for count in (9, 3, 6)]


def hidden_states(model: torch.nn.Module, row: list[int], count: int) -> list[torch.Tensor]:
    """The model's own block outputs `[position, d_model]`, all but the last block's."""
    with torch.no_grad():
        states = model(torch.tensor([row]), output_hidden_states=True).hidden_states
    # Mamba's list starts after its first block, the others' with the embeddings.
    first = 0 if model.config.model_type == "mamba" else 1
    return [states[first + layer][0] for layer in range(count - 1)]


@pytest.mark.parametrize("family", FAMILIES)
def test_recorded_outputs_equal_the_models_own_hidden_states(family: str) -> None:
    model = tiny_model(family, **FAMILIES[family])
    count = model.config.get_text_config().num_hidden_layers
    assert count == 4
    points = block_points(find_blocks(model), range(count))
    tokens, mask = pad(ROWS, 0)
    got: dict[int, torch.Tensor] = {}
    with record(points, lambda point, hidden: got.update({point.layer: +hidden})):
        run_backbone(model, tokens, mask)
    for index, row in enumerate(ROWS):
        for layer, own in enumerate(hidden_states(model, row, count)):
            mine = got[layer][index][: len(row)]
            torch.testing.assert_close(mine, own, atol=1e-4, rtol=1e-4)
            assert own.abs().max() > 0


def test_there_are_at_least_twenty_families() -> None:
    assert len(FAMILIES) >= 20
