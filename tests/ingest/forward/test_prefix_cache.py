"""A shared prefix changes nothing but the time, and is refused where it would."""

from __future__ import annotations

import inspect
import itertools
import re
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from axes.ingest.forward.prefix_cache import PrefixPath, share_prefix
from axes.ingest.forward.prefix_tree import (
    SHORTEST_PREFIX,
    count_tokens,
    prefix_families,
    prefix_length,
    trial_rows,
)
from axes.ingest.forward.recording import block_points
from tests.ingest.forward.families import FAMILIES, WITHOUT, block_outputs, loaded_tiny, shared_tiny

PREFIX = [1, *range(5, 25)]
ROWS = [[*PREFIX, 40, 41, 42], [*PREFIX, 50], [*PREFIX, 40, 60, 61, 62, 63]]

# What transformers keeps of these does not hold every position of every layer.
_WINDOWED = ("cohere2", "exaone4", "gemma2", "gemma3_text", "gemma4_text", "gpt_oss")
_WINDOWED += ("llama4_text", "mistral", "olmo3")
FALLS_BACK = {
    **dict.fromkeys(_WINDOWED, "DynamicSlidingWindowLayer"),
    # Since transformers 5.24 a state is a cache too; before, there was none to ask.
    **dict.fromkeys(
        sorted(({"qwen3_5_text", "qwen3_next"} | WITHOUT.keys()) - {"gemma4_text"}),
        "LinearAttention|keeps no keys and values|carries a state",
    ),
}


@pytest.mark.parametrize("family", [name for name in FAMILIES if name not in FALLS_BACK])
def test_the_rest_after_the_prefix_is_as_in_a_pass_over_the_whole(family: str) -> None:
    model = shared_tiny(family)
    points = block_points(model.blocks, range(4))
    prefix, remark = share_prefix(model, ROWS, points)
    assert remark is None and prefix is not None
    assert prefix.length == len(PREFIX)
    whole = block_outputs(model, ROWS)
    # Twice, from one prefix: the first batch must not have changed it.
    for chosen in (ROWS, ROWS[1:]):
        ends = [row[len(PREFIX) :] for row in chosen]
        rest = block_outputs(model, ends, cache=prefix.cache(len(chosen)))
        for expected, found in zip(whole[-len(chosen) :], rest, strict=True):
            torch.testing.assert_close(found, expected[:, len(PREFIX) :], atol=1e-4, rtol=1e-4)
    for point in points:
        torch.testing.assert_close(
            prefix.hidden[point][0], whole[0][point.layer, : len(PREFIX)], atol=1e-4, rtol=1e-4
        )


@pytest.mark.parametrize(("family", "reason"), FALLS_BACK.items())
def test_a_family_whose_cache_does_not_hold_everything_falls_back_and_says_why(family, reason):
    model = shared_tiny(family)
    prefix, remark = share_prefix(model, ROWS, block_points(model.blocks, range(4)))
    assert prefix is None
    assert remark is not None
    assert remark.startswith("a shared prefix of 21 tokens was run with every prompt")
    assert re.search(reason, remark)


def test_a_model_that_reads_a_reused_prefix_otherwise_is_found_out() -> None:
    """Positions that count from the batch's own start: cached tokens would be misplaced."""
    model = loaded_tiny("llama")
    backbone = model.model.base_model
    forward = backbone.forward

    def misplaced(**inputs: Any) -> Any:
        width = inputs["input_ids"].shape[1]
        return forward(**{**inputs, "position_ids": torch.arange(width)[None]})

    misplaced.__signature__ = inspect.signature(forward)  # type: ignore[attr-defined]
    backbone.forward = misplaced
    prefix, remark = share_prefix(model, ROWS, block_points(model.blocks, range(4)))
    assert prefix is None
    assert remark is not None and "reused, activations differ by" in remark


def test_where_nothing_is_saved_there_is_no_prefix_and_each_prompt_keeps_a_token() -> None:
    model = shared_tiny("llama")
    for rows in (
        [[1, 2, 3], [1, 2, 4]],
        [[*range(40)]],
        [[*range(40)], [9, *range(40)]],
        [[*range(SHORTEST_PREFIX)], [*range(40)]],
    ):
        assert share_prefix(model, rows, block_points(model.blocks, [0])) == (None, None)
    rows = [PREFIX, [*PREFIX, 30], PREFIX]
    prefix, _ = share_prefix(model, rows, block_points(model.blocks, [3]))
    assert prefix is not None and prefix.length == len(PREFIX) - 1


# Three levels: all rows, examples that some share, and a turn after them.
EXAMPLES = [[*PREFIX, *range(100 + 20 * kind, 112 + 20 * kind)] for kind in range(2)]
ROWS = [
    *([*EXAMPLES[0], 30 + at] for at in range(4)),
    *([*EXAMPLES[1], *range(150, 160), 30 + at, 99] for at in range(4)),
    [*EXAMPLES[1], 31],
    [*PREFIX, 77, 78],
]
TREE = {f"p{at}": row for at, row in enumerate(ROWS)}


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_rows_after_the_prefixes_of_a_tree_are_as_in_passes_over_the_whole(family: str) -> None:
    model = shared_tiny(family)
    points = block_points(model.blocks, range(4))
    families = prefix_families(TREE, 8)
    ends = [each.ends for each in families]
    assert ends == [(21,), (21, 33), (21, 33, 43), (21, 33)]
    assert count_tokens(families, TREE) == 43 + 12 + 4 + 2 * 4 + 1 + 2 < sum(map(len, ROWS)) / 4
    first, _ = share_prefix(model, trial_rows(families, TREE), points)
    assert first is not None and first.tokens == PREFIX
    path = PrefixPath(model, points, first)
    # Back and forth: as a worker meets them that is given some of the batches.
    for each, count in zip((*families, families[0]), (0, 12, 10, 12, 0), strict=True):
        assert path.move_to(each) == count
        assert path.last is not None and path.last.tokens == each.tokens
        rows = [TREE[name] for name in each.names]
        whole = block_outputs(model, rows)
        rest = [row[len(each.tokens) :] for row in rows]
        after = block_outputs(model, rest, cache=path.last.cache(len(rows)))
        for expected, found in zip(whole, after, strict=True):
            torch.testing.assert_close(found, expected[:, len(each.tokens) :], atol=1e-5, rtol=1e-4)
        for point in points:
            before = whole[0][point.layer, : len(each.tokens)]
            torch.testing.assert_close(path.last.hidden[point][0], before, atol=1e-5, rtol=1e-4)


@given(
    st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=24), min_size=1, max_size=20),
    st.integers(0, 40),
)
def test_each_row_is_in_one_family_and_keeps_a_token_after_its_prefix(
    rows: list[list[int]], min_saved: int
) -> None:
    tree = {f"p{at}": row for at, row in enumerate(rows)}
    families = prefix_families(tree, min_saved)
    assert sorted(name for each in families for name in each.names) == sorted(tree)
    for each in families:
        steps = [end - start for start, end in itertools.pairwise((0, *each.ends))]
        assert sum(steps) == len(each.tokens) and all(step >= SHORTEST_PREFIX for step in steps)
        for name in each.names:
            assert tree[name][: len(each.tokens)] == each.tokens != tree[name]
    shared = trial_rows(families, tree)
    lengths = {each.ends[0] for each in families if each.ends}
    assert prefix_length(shared) in lengths if shared else not lengths
    assert count_tokens(families, tree) <= sum(map(len, rows))
