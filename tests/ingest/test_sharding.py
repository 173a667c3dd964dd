"""Parts are disjoint and together complete, whatever the prompts are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.prompts import prompt_id
from ingest.sharding import Shard
from warehouse.errors import PromptError


@given(st.sets(st.integers(0, 2**64 - 1).map("{:016x}".format), max_size=60), st.integers(1, 9))
def test_the_parts_are_disjoint_and_together_complete(ids: set[str], count: int) -> None:
    parts = [{name for name in ids if Shard(n, count).takes(name)} for n in range(1, count + 1)]
    assert set().union(*parts) == ids
    assert sum(map(len, parts)) == len(ids)


def test_many_prompts_are_spread_evenly() -> None:
    ids = [prompt_id(f"text {index}") for index in range(4000)]
    for number in range(1, 9):
        assert 400 < sum(Shard(number, 8).takes(name) for name in ids) < 600


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "1/0", "a/b", "-1/3", "1/3/5", ""])
def test_what_is_no_part_is_refused(text: str) -> None:
    with pytest.raises(PromptError, match="1/8, 2/8, ... 8/8 is expected"):
        Shard.parse(text)
