"""Recording is exact on every kind of architecture: no family has an entry anywhere in the code."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from axes.ingest.forward.batching import pad
from axes.ingest.forward.recording import Point, block_points, find_points, record, run_backbone
from axes.ingest.models.load import find_blocks
from axes.warehouse.errors import ModelError
from axes.warehouse.names import SITES
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


WITH_ATTENTION = [family for family in FAMILIES if family != "mamba"]


def loaded(family: str, **sizes: Any) -> Any:
    """As much of a `LoadedModel` as finding sites needs; weights far from their initial values."""
    model = tiny_model(family, **{**FAMILIES[family], **sizes})
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight), alpha=0.1)
    return SimpleNamespace(
        model=model, blocks=find_blocks(model), spec=SimpleNamespace(name=f"tiny-{family}")
    )


def recorded(model: Any, points: dict[tuple[int, str], Point]) -> dict[tuple[int, str], Any]:
    tokens, mask = pad(ROWS, 0)
    got: dict[tuple[int, str], torch.Tensor] = {}

    def receive(point: Point, hidden: torch.Tensor) -> None:
        # Some families flatten batch and position before the MLP.
        got[point.layer, point.site] = hidden.reshape(*tokens.shape, -1).clone()

    with record(list(points.values()), receive):
        run_backbone(model.model, tokens, mask)
    return {place: hidden[mask] for place, hidden in got.items()}


@pytest.mark.parametrize("family", WITH_ATTENTION)
def test_what_attention_and_mlp_add_is_the_difference_of_output_and_input(family: str) -> None:
    model = loaded(family)
    points = find_points(model, [0, 2], SITES)
    assert len({id(point.module) for point in points.values()}) == 6
    got = recorded(model, points)
    for layer in (0, 2):
        added = got[layer, "attn_out"] + got[layer, "mlp_out"]
        expected = got[layer, "resid_post"] - got[layer, "resid_pre"]
        torch.testing.assert_close(
            added, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max())
        )


@pytest.mark.parametrize("family", ["llama", "gpt_neox", "gemma3_text", "bloom"])
def test_attention_is_told_from_the_mlp(family: str) -> None:
    """Attention mixes positions: what it adds at the last one depends on the first token."""
    model = loaded(family)
    points = find_points(model, [0], ("attn_out", "resid_pre"))
    got: list[dict[str, torch.Tensor]] = []
    for first in (7, 9):
        tokens = torch.tensor([[first, 4, 5, 6]])
        seen: dict[str, torch.Tensor] = {}
        with record(
            list(points.values()), lambda point, h, seen=seen: seen.update({point.site: h.clone()})
        ):
            run_backbone(model.model, tokens, torch.ones_like(tokens, dtype=torch.bool))
        got.append(seen)
    torch.testing.assert_close(got[0]["resid_pre"][0, -1], got[1]["resid_pre"][0, -1])
    assert (got[0]["attn_out"][0, -1] - got[1]["attn_out"][0, -1]).abs().max() > 1e-4


def test_the_input_of_a_block_is_the_output_of_the_one_before() -> None:
    model = loaded("llama")
    points = {**find_points(model, [2], ("resid_post",)), **find_points(model, [3], ("resid_pre",))}
    got = recorded(model, points)
    assert torch.equal(got[3, "resid_pre"], got[2, "resid_post"])


def test_a_state_space_block_has_no_attention_and_says_so() -> None:
    model = loaded("mamba")
    assert len(find_points(model, [0], ("resid_pre", "resid_post"))) == 2
    with pytest.raises(ModelError, match="tiny-mamba has no attn_out and mlp_out at layer 0"):
        find_points(model, [0], ("mlp_out",))


def test_a_family_that_scales_what_it_adds_is_refused_and_not_misread() -> None:
    model = loaded("granite", residual_multiplier=0.22)
    with pytest.raises(ModelError, match="tiny-granite has no attn_out and mlp_out at layer 1"):
        find_points(model, [1], ("attn_out",))


def test_an_unknown_site_names_those_there_are() -> None:
    with pytest.raises(ModelError, match="unknown site q_proj: it is one of resid_post, resid_pre"):
        find_points(loaded("llama"), [0], ("q_proj",))
