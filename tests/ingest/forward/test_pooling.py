"""Pooling reads its span of each prompt alone: what stands elsewhere does not matter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from beartype import beartype
from beartype.roar import BeartypeCallHintParamViolation
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Bool, Float, TypeCheckError, jaxtyped

from axes.ingest.forward.forward import SpanReader
from axes.ingest.forward.pooling import POOLINGS, Pooling, find_pooling, maximum, mean
from axes.ingest.forward.templates import Rendered
from axes.warehouse.errors import ModelError

D_MODEL = 3


def padded(rows: list[torch.Tensor], fill: float = float("nan")) -> torch.Tensor:
    """Rows `[position, d_model]` as one batch, filled up with NaN behind."""
    width = max(len(row) for row in rows)
    hidden = torch.full((len(rows), width, D_MODEL), fill, dtype=rows[0].dtype)
    for index, row in enumerate(rows):
        hidden[index, : len(row)] = row
    return hidden


def prompt(count: int, user_end: int | None, user_start: int | None = 0) -> Rendered:
    return Rendered([0] * count, "", user_start, user_end)


def pooled(chosen: Pooling, rows: list[torch.Tensor], fill: float = float("nan")) -> torch.Tensor:
    """Each row's vector; the user's text is all but the last token of a row."""
    reader = SpanReader([chosen.positions(prompt(len(row), max(len(row) - 1, 1))) for row in rows])
    return reader.read(padded(rows, fill), chosen.reduce)


def random_rows(lengths: list[int], seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(length, D_MODEL, generator=generator) for length in lengths]


LENGTHS = st.lists(st.integers(2, 12), min_size=1, max_size=5)
NAMES = st.sampled_from(sorted(POOLINGS))


@settings(max_examples=60, deadline=None)
@given(lengths=LENGTHS, seed=st.integers(0, 1000), name=NAMES)
def test_a_batch_gives_what_numpy_gives_over_each_span(lengths, seed, name):
    rows = random_rows(lengths, seed)
    chosen = POOLINGS[name]
    found = pooled(chosen, rows)
    for index, row in enumerate(rows):
        start, end = chosen.positions(prompt(len(row), len(row) - 1))
        reduced = np.max if name in ("max", "content_max") else np.mean
        expected = reduced(row.double().numpy()[start:end], axis=0)
        np.testing.assert_allclose(found[index].numpy(), expected, atol=1e-6, rtol=1e-5)


@settings(max_examples=60, deadline=None)
@given(count=st.integers(1, 30), user_end=st.none() | st.integers(1, 30), name=NAMES)
def test_a_span_lies_within_the_prompt_and_is_never_empty(count, user_end, name):
    if user_end is not None and user_end > count:
        return
    span = POOLINGS[name].positions(prompt(count, user_end))
    if span is None:
        assert name in ("instruction_last", "post_template_mean", "content_mean", "content_max")
        assert user_end is None or (user_end == count and name == "post_template_mean")
    else:
        assert 0 <= span[0] < span[1] <= count


def test_each_pooling_reads_the_positions_of_its_name() -> None:
    row = torch.arange(8.0)[:, None].expand(8, D_MODEL)
    # The user's text is positions 2 to 4; three template tokens follow.
    expected = {
        "last5_mean": np.mean([3, 4, 5, 6, 7]),
        "last": 7,
        "mean": 3.5,
        "max": 7,
        "instruction_last": 4,
        "post_template_mean": np.mean([5, 6, 7]),
        "content_mean": 3,
        "content_max": 4,
    }
    assert expected.keys() == POOLINGS.keys()
    for name, value in expected.items():
        reader = SpanReader([POOLINGS[name].positions(prompt(8, 5, 2))])
        assert reader.read(row[None], POOLINGS[name].reduce)[0, 0] == value
    # A prompt shorter than five tokens is pooled over what is there.
    rows = random_rows([1, 9], seed=1)
    torch.testing.assert_close(pooled(POOLINGS["last5_mean"], rows)[0], rows[0].mean(0))
    for count in (1, 2, 3, 4):
        assert POOLINGS["last5_mean"].positions(prompt(count, count)) == (0, count)


def test_a_pooling_of_the_content_counts_from_the_users_text_and_needs_one() -> None:
    last2 = Pooling("last2", lambda count, user_end: (max(count - 2, 0), user_end), mean, True)
    assert last2.positions(prompt(9, 6, 3)) == (4, 6)
    assert last2.positions(prompt(9, 4, 3)) == (3, 4)
    nowhere = Pooling("nowhere", lambda count, user_end: None, mean, True)
    assert nowhere.positions(prompt(9, 6, 3)) is None
    for empty in (prompt(9, 3, 3), prompt(9, None, 3), prompt(9, 6, None)):
        assert last2.positions(empty) is None


@pytest.mark.parametrize("name", sorted(POOLINGS))
def test_what_stands_outside_the_span_does_not_leak(name: str) -> None:
    rows = random_rows([2, 7], seed=2)
    for fill in (float("nan"), float("inf"), 1e30):
        assert torch.equal(pooled(POOLINGS[name], rows, fill), pooled(POOLINGS[name], rows, 0.0))


def test_a_nan_inside_the_prompt_is_not_hidden() -> None:
    row = torch.ones(6, D_MODEL)
    row[4, 1] = float("nan")
    for name in ("last5_mean", "max"):
        assert pooled(POOLINGS[name], [row])[0].isnan().tolist() == [False, True, False]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_pooled_in_float32(dtype: torch.dtype) -> None:
    row = torch.full((5, D_MODEL), 60000.0).to(dtype)
    found = pooled(POOLINGS["last5_mean"], [row])
    assert found.dtype == torch.float32
    torch.testing.assert_close(found[0], row[0].float())
    fine = torch.tensor([1.0, 1.0, 1.0, 1.0, 1.0078125]).to(dtype)[:, None].expand(5, D_MODEL)
    torch.testing.assert_close(
        pooled(POOLINGS["last5_mean"], [fine])[0], fine.float().mean(0), atol=1e-7, rtol=0
    )


def test_the_input_is_not_changed() -> None:
    hidden = padded(random_rows([3, 6], seed=3), fill=7.0)
    before = hidden.clone()
    for chosen in POOLINGS.values():
        spans = [chosen.positions(prompt(3, 2)), chosen.positions(prompt(6, 2))]
        SpanReader(spans).read(hidden, chosen.reduce)
    assert torch.equal(hidden, before)


@pytest.mark.parametrize("reduce", [mean, maximum])
def test_shapes_are_as_annotated(reduce, monkeypatch: pytest.MonkeyPatch) -> None:
    # The module imports these for type checkers only: names of poolings load without torch.
    for name, value in {"Bool": Bool, "Float": Float, "Tensor": torch.Tensor}.items():
        monkeypatch.setitem(reduce.__globals__, name, value)
    checked = jaxtyped(typechecker=beartype)(reduce)
    hidden, mask = torch.randn(2, 6, D_MODEL), torch.ones(2, 6, dtype=torch.bool)
    assert checked(hidden, mask).shape == (2, D_MODEL)
    for bad in (mask[:, :-1], mask[:1], mask.float()):
        with pytest.raises((TypeCheckError, BeartypeCallHintParamViolation)):
            checked(hidden, bad)


OWN_POOLING = """
from axes.ingest.forward.pooling import Pooling, mean

POOLING = Pooling("first2_mean", lambda count, user_end: (0, min(count, 2)), mean)
"""


def test_a_pooling_of_ones_own_is_a_file_and_its_content_is_in_its_name(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(OWN_POOLING)
    chosen = find_pooling(str(path))
    rows = random_rows([4], seed=5)
    torch.testing.assert_close(pooled(chosen, rows)[0], rows[0][:2].mean(0))
    name, _, digest = chosen.name.partition("@")
    assert name == "first2_mean" and len(digest) == 8
    path.write_text(OWN_POOLING.replace("2)", "3)"))
    assert find_pooling(str(path)).name not in (chosen.name, "first2_mean")


def test_a_file_without_a_pooling_and_an_unknown_name_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    for text in ("", "POOLING = 3"):
        path.write_text(text)
        with pytest.raises(ModelError, match="defines no POOLING"):
            find_pooling(str(path))
    with pytest.raises(
        ModelError, match=r"unknown pooling median.*: it is one of last5_mean, last"
    ):
        find_pooling("median")
