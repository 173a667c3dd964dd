"""What attention and MLP add to the stream is found on every kind of architecture."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from axes.ingest.forward.batching import pad
from axes.ingest.forward.recording import Point, find_points, recorded
from axes.ingest.models.load import LoadedModel
from axes.warehouse.errors import ModelError
from axes.warehouse.names import SITES
from tests.ingest.forward.families import ROWS, WITH_ATTENTION, loaded_tiny, shared_tiny


def at_points(loaded: LoadedModel, points: dict[tuple[int, str], Point]) -> dict[Any, Any]:
    """`[token, d_model]` at each layer and site."""
    tokens, mask = pad(ROWS, 0)
    found = recorded(loaded.model, list(points.values()), tokens, mask)
    # Some families flatten batch and position before the MLP.
    return {
        (point.layer, point.site): hidden.reshape(*tokens.shape, -1)[mask]
        for point, hidden in found.items()
    }


@pytest.mark.parametrize("family", WITH_ATTENTION)
def test_what_attention_and_mlp_add_is_the_difference_of_output_and_input(family: str) -> None:
    model = shared_tiny(family)
    points = find_points(model, [0, 2], SITES)
    assert len({id(point.module) for point in points.values()}) == 6
    got = at_points(model, points)
    for layer in (0, 2):
        added = got[layer, "attn_out"] + got[layer, "mlp_out"]
        expected = got[layer, "resid_post"] - got[layer, "resid_pre"]
        torch.testing.assert_close(
            added, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max())
        )


@pytest.mark.parametrize("family", ["llama", "gpt_neox", "gemma3_text", "bloom"])
def test_attention_is_told_from_the_mlp(family: str) -> None:
    """Attention mixes positions: what it adds at the last one depends on the first token."""
    model = shared_tiny(family)
    points = find_points(model, [0], ("attn_out", "resid_pre"))
    got: list[dict[str, torch.Tensor]] = []
    for first in (7, 9):
        tokens = torch.tensor([[first, 4, 5, 6]])
        mask = torch.ones_like(tokens, dtype=torch.bool)
        found = recorded(model.model, list(points.values()), tokens, mask)
        got.append({point.site: hidden for point, hidden in found.items()})
    torch.testing.assert_close(got[0]["resid_pre"][0, -1], got[1]["resid_pre"][0, -1])
    assert (got[0]["attn_out"][0, -1] - got[1]["attn_out"][0, -1]).abs().max() > 1e-4


def test_the_input_of_a_block_is_the_output_of_the_one_before() -> None:
    model = shared_tiny("llama")
    points = {**find_points(model, [2], ("resid_post",)), **find_points(model, [3], ("resid_pre",))}
    got = at_points(model, points)
    assert torch.equal(got[3, "resid_pre"], got[2, "resid_post"])


def test_what_has_no_attention_or_scales_what_it_adds_is_refused_and_not_misread() -> None:
    state_space = shared_tiny("mamba")
    assert len(find_points(state_space, [0], ("resid_pre", "resid_post"))) == 2
    scaled = loaded_tiny("granite", residual_multiplier=0.22)
    for model, layer, site, message in (
        (state_space, 0, "mlp_out", "tiny-mamba has no attn_out and mlp_out at layer 0"),
        (scaled, 1, "attn_out", "tiny-granite has no attn_out and mlp_out at layer 1"),
        (scaled, 0, "q_proj", "unknown site q_proj: it is one of resid_post, resid_pre"),
    ):
        with pytest.raises(ModelError, match=message):
            find_points(model, [layer], (site,))
