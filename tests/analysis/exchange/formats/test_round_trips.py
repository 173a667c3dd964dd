"""What is written is recognised, and read back to the bit, in every format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from axes.analysis.exchange.formats import FORMATS, recognise
from axes.analysis.exchange.formats.contents import (
    BLOCK,
    HIDDEN_STATES,
    LAYER,
    Contents,
    layer_of,
    number_of,
)

LAYER_COUNT, WIDTH = 5, 8


def card(name: str, number: int) -> dict:
    return {
        "axis_id": f"id{number}",
        "name": f"native/m/{number}/set",
        "kind": "native",
        "method": "mean_diff",
        "layer": number,
        "layer_convention": "blocks",
        "site": "resid_post",
        "pooling": "last",
        "template": "raw",
        "space_model": "m",
        "space_model_id": "id",
        "space": {"license": "Apache-2.0", "source": "hf:owner/m", "revision": None},
        "prompt_set": "set",
        "positive_count": 2,
        "negative_count": 2,
        "row_set_hash": "hash",
        "license": {"weights": "Apache-2.0", "prompts": []},
        "raw_norm": 2.0,
        "is_unit_norm": True,
        "parameters": {},
        "evaluation": [],
        "calibration": [],
        "limits": ["None."],
        "file": {"format": name, "number": number, "convention": FORMATS[name].convention},
    }


def contents(name: str, numbers: list[int]) -> Contents:
    random = np.random.default_rng(0)
    return Contents(
        vectors={number: random.standard_normal(WIDTH, dtype=np.float32) for number in numbers},
        convention=FORMATS[name].convention,
        model_type="llama",
        model_name="m",
        method="mean_diff",
        layer_count=LAYER_COUNT,
        cards=[card(name, number) for number in numbers],
    )


def written(name: str, numbers: list[int], folder: Path) -> tuple[Contents, Path]:
    made = contents(name, numbers)
    path = folder / f"axis{FORMATS[name].suffix}"
    FORMATS[name].file.write(made, path)
    return made, path


@pytest.mark.parametrize("name", FORMATS)
def test_one_direction_comes_back_with_its_card(name: str, tmp_path: Path) -> None:
    made, path = written(name, [3], tmp_path)
    found = recognise(path)
    assert found is not None
    read = found.file.read(path)
    ((number, vector),) = read.vectors.items()
    np.testing.assert_array_equal(vector, made.vectors[3])
    assert vector.dtype == np.float32
    assert read.card(number) == made.cards[0]
    assert number in (3, None)


@pytest.mark.parametrize("name", [name for name, kind in FORMATS.items() if kind.holds_several])
def test_several_directions_come_back_by_their_numbers(name: str, tmp_path: Path) -> None:
    made, path = written(name, [1, 2, 4], tmp_path)
    found = recognise(path)
    assert found is not None
    read = found.file.read(path)
    assert sorted(read.vectors) == [1, 2, 4]
    assert read.convention == FORMATS[name].convention
    for number, vector in made.vectors.items():
        np.testing.assert_array_equal(read.vectors[number], vector)
        assert read.card(number)["name"] == f"native/m/{number}/set"


@given(
    layer=st.integers(0, 200),
    convention=st.sampled_from([BLOCK, HIDDEN_STATES, LAYER]),
    site=st.sampled_from(["resid_post", "resid_pre"]),
)
def test_a_number_stands_for_the_layer_that_was_given_it(
    layer: int, convention: str, site: str
) -> None:
    assert layer_of(number_of(layer, convention, site), convention, site) == layer


def test_the_conventions_are_one_apart_and_sites_too() -> None:
    assert number_of(7, HIDDEN_STATES, "resid_post") == number_of(7, BLOCK, "resid_post") + 1 == 8
    assert number_of(7, BLOCK, "resid_pre") == number_of(6, BLOCK, "resid_post") == 6
    assert number_of(0, BLOCK, "resid_pre") == -1


@given(data=st.binary(max_size=200))
def test_a_file_of_noise_is_no_format(
    data: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("noise") / "noise"
    path.write_bytes(data)
    found = recognise(path)
    # What begins like a format is taken for it, and fails when it is read.
    assert found is None or data[:4] == b"GGUF" or data[8:9] == b"{" or data[:1] in b"{\x93 \n\t"
