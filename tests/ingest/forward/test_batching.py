"""Batches hold every prompt once, within the budget, longest first."""

from __future__ import annotations

import torch
from beartype import beartype
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import jaxtyped

from axes.ingest.forward.batching import HostCopy, pad, plan_batches, positions

LENGTHS = st.lists(st.integers(0, 60), max_size=40)
ROWS = st.lists(st.lists(st.integers(1, 99), min_size=1, max_size=9), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(lengths=LENGTHS, budget=st.integers(1, 100))
def test_every_prompt_is_in_one_batch_within_the_budget_longest_first(lengths, budget):
    batches = plan_batches(dict(enumerate(lengths)), budget)
    in_order = [index for batch in batches for index in batch]
    assert sorted(in_order) == list(range(len(lengths)))
    assert [lengths[index] for index in in_order] == sorted(lengths, reverse=True)
    for batch in batches:
        padded_size = max(lengths[index] for index in batch) * len(batch)
        assert padded_size <= budget or len(batch) == 1


def test_like_lengths_share_a_batch() -> None:
    lengths = dict.fromkeys("abcd", 4)
    assert plan_batches(lengths, token_budget=16) == [["a", "b", "c", "d"]]
    assert plan_batches(lengths, token_budget=15) == [["a", "b", "c"], ["d"]]


@settings(max_examples=60, deadline=None)
@given(rows=ROWS, side=st.sampled_from(["left", "right"]))
def test_padding_keeps_each_row_and_marks_it(rows: list[list[int]], side: str) -> None:
    tokens, mask = pad(rows, 0, side=side)
    assert tokens.shape == mask.shape == (len(rows), max(map(len, rows)))
    for row, row_tokens, row_mask in zip(rows, tokens, mask, strict=True):
        assert row_tokens[row_mask].tolist() == row
        assert row_tokens[~row_mask].tolist() == [0] * (len(row_mask) - len(row))
        edge = row_mask if side == "right" else row_mask.flip(0)
        assert edge.tolist() == sorted(edge.tolist(), reverse=True)


def test_positions_count_real_tokens() -> None:
    for side in ("left", "right"):
        _, mask = pad([[7, 8, 9, 9], [5, 6]], 0, side=side)
        counted = positions(mask)
        assert counted[0].tolist() == [0, 1, 2, 3]
        assert counted[1][mask[1]].tolist() == [0, 1]
        assert (counted >= 0).all()


def test_shapes_are_as_annotated() -> None:
    tokens, mask = jaxtyped(typechecker=beartype)(pad)([[1, 2], [3]], 0)
    assert tokens.dtype == torch.int64
    assert jaxtyped(typechecker=beartype)(positions)(mask).shape == mask.shape


def test_copies_arrive_under_their_names_whatever_their_shapes() -> None:
    tensors = {"a": torch.randn(2, 3), "b": torch.randn(4), "c": torch.randn(2, 3)}
    arrived = HostCopy(tensors).result()
    assert arrived.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert arrived[name].tolist() == tensor.tolist()
    assert HostCopy({}).result() == {}


def test_a_copy_is_of_the_moment_it_was_started() -> None:
    tensor = torch.ones(2)
    copy = HostCopy({"a": tensor})
    tensor.zero_()
    assert copy.result()["a"].tolist() == [1.0, 1.0]
