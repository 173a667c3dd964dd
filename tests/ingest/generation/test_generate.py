"""Rows draw by themselves, from the distribution they should."""

from __future__ import annotations

import pytest
import torch

from axes.ingest.generation.generate import draw, row_seed, uniforms
from axes.ingest.requests import Sampling

LOGITS = torch.tensor([2.0, -1.0, 0.5, 1.5, -torch.inf])
CPU = torch.device("cpu")


def frequencies(sampling: Sampling, count: int = 20_000) -> torch.Tensor:
    """How often each token is drawn, over as many rows."""
    numbers = uniforms([7], count, CPU)[0]
    drawn = draw(LOGITS.expand(count, -1), numbers, sampling)
    return drawn.bincount(minlength=len(LOGITS)) / count


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_tokens_are_drawn_as_often_as_they_are_likely(temperature: float) -> None:
    expected = (LOGITS / temperature).softmax(-1)
    # Four standard errors at most.
    tolerance = 4 * (0.25 / 20_000) ** 0.5
    found = frequencies(Sampling(temperature=temperature))
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)
    assert found[4] == 0, "what is ruled out is never drawn"


@pytest.mark.parametrize(("top_p", "kept"), [(0.05, [0]), (0.6, [0, 3]), (0.9, [0, 2, 3])])
def test_top_p_keeps_the_fewest_tokens_of_that_mass(top_p: float, kept: list[int]) -> None:
    found = frequencies(Sampling(temperature=1.0, top_p=top_p))
    assert found.nonzero().flatten().tolist() == kept
    chances = LOGITS.softmax(-1)[kept]
    torch.testing.assert_close(found[kept], chances / chances.sum(), atol=0.02, rtol=0)


def test_the_ends_of_the_range_draw_tokens_that_there_are() -> None:
    ends = torch.tensor([0.0, 1 - 2**-24])
    for top_p in (1.0, 0.5):
        drawn = draw(LOGITS.expand(2, -1), ends, Sampling(temperature=1.0, top_p=top_p))
        assert (LOGITS[drawn] > -torch.inf).all()


def test_a_rows_numbers_are_its_own() -> None:
    seeds = [row_seed(0, name) for name in ("a", "b", "c")]
    together = uniforms(seeds, 5, CPU)
    torch.testing.assert_close(together[1:2], uniforms(seeds[1:2], 5, CPU), atol=0, rtol=0)
    torch.testing.assert_close(together[:, :3], uniforms(seeds, 3, CPU)[:, :3], atol=0, rtol=0)
    assert len(together.flatten().unique()) == 15
