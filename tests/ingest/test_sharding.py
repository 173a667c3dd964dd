"""Shards are disjoint and together complete, whatever is in them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axes.ingest.jobs import Shard
from axes.ingest.prompts import prompt_id
from axes.warehouse.errors import PromptError


@given(count=st.integers(1, 12), texts=st.lists(st.text(min_size=1), unique=True, max_size=40))
def test_every_prompt_falls_into_exactly_one_part(count: int, texts: list[str]) -> None:
    shards = [Shard(number, count) for number in range(1, count + 1)]
    for text in texts:
        assert sum(shard.takes(prompt_id(text)) for shard in shards) == 1


def test_parts_are_of_like_size() -> None:
    shard = Shard.parse("2/4")
    taken = sum(shard.takes(prompt_id(f"prompt {index}")) for index in range(2000))
    assert 400 < taken < 600


def test_what_is_no_part_is_refused() -> None:
    for text in ("0/3", "4/3", "1", "1/0", "a/b", "-1/3", "1/3/5", ""):
        with pytest.raises(PromptError, match=r"1/8, 2/8, \.\.\. 8/8 is expected"):
            Shard.parse(text)
