"""The logit lens against the model's own logits, with the last block's output replaced."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from axes.ingest.models.unembedding import near_tokens
from axes.warehouse.errors import ModelError
from tests.ingest.forward.families import FAMILIES, shared_tiny
from tests.tiny_models import byte_tokenizer

WIDTH = 32


def logits_of(loaded: Any, direction: torch.Tensor) -> torch.Tensor:
    """The logits after a last block that puts out the direction at each position."""

    def put(_module: Any, _inputs: Any, output: Any) -> Any:
        hidden = output[0] if isinstance(output, tuple) else output
        placed = direction.expand_as(hidden).clone()
        return (placed, *output[1:]) if isinstance(output, tuple) else placed

    hook = loaded.blocks[-1].register_forward_hook(put)
    try:
        with torch.inference_mode():
            return loaded.model(torch.tensor([[1, 40, 41]]), use_cache=False).logits[0, -1].double()
    finally:
        hook.remove()


@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_are_ranked_as_the_model_ranks_them(family: str) -> None:
    """Half the difference of both signs: the biases of norm and unembedding are in neither.

    Families that cap logits softly bend the largest ones a little.
    """
    tokenizer = byte_tokenizer()
    loaded = replace(shared_tiny(family), tokenizer=tokenizer)
    direction = np.random.default_rng(3).standard_normal(WIDTH)
    placed = torch.from_numpy(direction).float()
    expected = (logits_of(loaded, placed) - logits_of(loaded, -placed)).numpy() / 2
    expected = expected[: len(tokenizer)]
    expected = (expected - expected.mean()) / expected.std()
    near = near_tokens(loaded, direction, 5)
    order = np.argsort(expected)
    assert [rank for rank, _, _ in near] == [1, 2, 3, 4, 5, -5, -4, -3, -2, -1]
    np.testing.assert_allclose(
        [value for _, _, value in near], expected[[*order[:-6:-1], *order[4::-1]]], atol=1e-2
    )
    assert near[0][1] == tokenizer.decode([order[-1]])


def test_a_planted_token_is_the_nearest_and_a_wrong_width_is_one_line() -> None:
    loaded = replace(shared_tiny("gpt2"), tokenizer=byte_tokenizer())
    row = loaded.model.get_output_embeddings().weight[70].double().numpy()
    assert near_tokens(loaded, row, 1)[0][1] == loaded.tokenizer.decode([70])
    with pytest.raises(ModelError, match="tiny-gpt2 has no unembedding of 8 numbers"):
        near_tokens(loaded, np.ones(8), 1)
