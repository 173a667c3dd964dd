"""Sites add up on every family: attention and MLP add what lies between input and output."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from axes.ingest.forward.batching import pad
from axes.ingest.forward.recording import Point, find_points, record, run_backbone
from axes.ingest.models.load import find_blocks
from axes.warehouse.errors import ModelError
from axes.warehouse.names import SITES
from tests.ingest.forward.test_families import FAMILIES, ROWS
from tests.tiny_models import tiny_model

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
