"""Pooling reads the mask alone: the side and the content of the padding do not matter."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from beartype import beartype
from beartype.roar import BeartypeCallHintParamViolation
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError, jaxtyped

from ingest import pooling
from ingest.pooling import POOLINGS, mean_of_all, mean_of_last

D_MODEL = 3


def padded(
    rows: list[torch.Tensor], side: str, fill: float = float("nan")
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows `[position, d_model]` as one batch, padding filled with NaN, and the mask."""
    width = max(len(row) for row in rows)
    hidden = torch.full((len(rows), width, D_MODEL), fill, dtype=rows[0].dtype)
    mask = torch.zeros((len(rows), width), dtype=torch.bool)
    for index, row in enumerate(rows):
        start = width - len(row) if side == "left" else 0
        hidden[index, start : start + len(row)] = row
        mask[index, start : start + len(row)] = True
    return hidden, mask


def random_rows(lengths: list[int], seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(length, D_MODEL, generator=generator) for length in lengths]


LENGTHS = st.lists(st.integers(1, 12), min_size=1, max_size=5)


@settings(max_examples=40, deadline=None)
@given(lengths=LENGTHS, seed=st.integers(0, 1000), name=st.sampled_from(sorted(POOLINGS)))
def test_left_padding_right_padding_and_none_give_the_mean_over_the_span(
    lengths: list[int], seed: int, name: str
) -> None:
    rows = random_rows(lengths, seed)
    chosen = POOLINGS[name]
    right, left = (chosen.pool(*padded(rows, side)) for side in ("right", "left"))
    for index, row in enumerate(rows):
        start, end = chosen.span(len(row))
        expected = torch.from_numpy(row.double().numpy()[start:end].mean(axis=0)).float()
        torch.testing.assert_close(right[index], expected, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(left[index], expected, atol=1e-6, rtol=1e-5)
        alone = chosen.pool(row[None], torch.ones(1, len(row), dtype=torch.bool))[0]
        torch.testing.assert_close(alone, expected, atol=1e-6, rtol=1e-5)


@settings(max_examples=40, deadline=None)
@given(count=st.integers(1, 30), name=st.sampled_from(sorted(POOLINGS)))
def test_a_span_lies_within_the_prompt_and_is_never_empty(count: int, name: str) -> None:
    start, end = POOLINGS[name].span(count)
    assert 0 <= start < end == count


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_a_prompt_shorter_than_five_tokens_is_pooled_over_what_is_there(count: int) -> None:
    rows = random_rows([count, 9], seed=1)
    pooled = POOLINGS["last5_mean"].pool(*padded(rows, "right"))
    torch.testing.assert_close(pooled[0], rows[0].mean(0))
    assert POOLINGS["last5_mean"].span(count) == (0, count)


def test_the_last_five_are_the_last_five() -> None:
    row = torch.arange(8.0)[:, None].expand(8, D_MODEL)
    assert POOLINGS["last5_mean"].pool(*padded([row], "left"))[0, 0] == np.mean([3, 4, 5, 6, 7])
    assert POOLINGS["last"].pool(*padded([row], "left"))[0, 0] == 7
    assert POOLINGS["mean"].pool(*padded([row], "left"))[0, 0] == 3.5


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("fill", [float("nan"), float("inf"), 1e30])
@pytest.mark.parametrize("name", sorted(POOLINGS))
def test_what_stands_at_padded_positions_does_not_leak(side: str, fill: float, name: str) -> None:
    rows = random_rows([2, 7], seed=2)
    clean = POOLINGS[name].pool(*padded(rows, side, fill=0.0))
    assert torch.equal(POOLINGS[name].pool(*padded(rows, side, fill=fill)), clean)


def test_a_nan_inside_the_prompt_is_not_hidden() -> None:
    row = torch.ones(6, D_MODEL)
    row[4, 1] = float("nan")
    assert POOLINGS["last5_mean"].pool(*padded([row], "right"))[0].isnan().tolist() == [
        False,
        True,
        False,
    ]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_pooled_in_float32(dtype: torch.dtype) -> None:
    row = torch.full((5, D_MODEL), 60000.0).to(dtype)
    pooled = POOLINGS["last5_mean"].pool(*padded([row], "right"))
    assert pooled.dtype == torch.float32
    torch.testing.assert_close(pooled[0], row[0].float())
    fine = torch.tensor([1.0, 1.0, 1.0, 1.0, 1.0078125]).to(dtype)[:, None].expand(5, D_MODEL)
    torch.testing.assert_close(
        POOLINGS["last5_mean"].pool(*padded([fine], "right"))[0],
        fine.float().mean(0),
        atol=1e-7,
        rtol=0,
    )


def test_the_input_is_not_changed() -> None:
    hidden, mask = padded(random_rows([3, 6], seed=3), "left", fill=7.0)
    before = hidden.clone(), mask.clone()
    for chosen in POOLINGS.values():
        chosen.pool(hidden, mask)
    assert torch.equal(hidden, before[0])
    assert torch.equal(mask, before[1])


def test_shapes_are_as_annotated(monkeypatch: pytest.MonkeyPatch) -> None:
    checked = jaxtyped(typechecker=beartype)(mean_of_last)
    monkeypatch.setattr(pooling, "mean_of_last", checked)
    checked_mean = jaxtyped(typechecker=beartype)(mean_of_all)
    hidden, mask = padded(random_rows([3, 6], seed=4), "right")
    assert checked(hidden, mask, 5).shape == (2, D_MODEL)
    assert checked_mean(hidden, mask).shape == (2, D_MODEL)
    for bad in (mask[:, :-1], mask[:1], mask.float()):
        with pytest.raises((TypeCheckError, BeartypeCallHintParamViolation)):
            checked(hidden, bad, 5)
