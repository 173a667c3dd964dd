"""A shared prefix changes nothing but the time, and is refused where it would."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest
import torch

from axes.ingest.forward.prefix_cache import SHORTEST_PREFIX, share_prefix
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
