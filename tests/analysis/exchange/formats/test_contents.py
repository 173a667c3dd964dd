"""Numbers of layers as formats count them, and files that are in no format."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from axes.analysis.exchange.formats import recognise
from axes.analysis.exchange.formats.contents import (
    BLOCK,
    HIDDEN_STATES,
    LAYER,
    layer_of,
    number_of,
)


@given(
    layer=st.integers(0, 200),
    convention=st.sampled_from([BLOCK, HIDDEN_STATES, LAYER]),
    site=st.sampled_from(["resid_post", "resid_pre"]),
)
def test_a_number_stands_for_the_layer_that_was_given_it(layer, convention, site):
    assert layer_of(number_of(layer, convention, site), convention, site) == layer


def test_the_conventions_are_one_apart_and_sites_too() -> None:
    assert number_of(7, HIDDEN_STATES, "resid_post") == number_of(7, BLOCK, "resid_post") + 1 == 8
    assert number_of(7, BLOCK, "resid_pre") == number_of(6, BLOCK, "resid_post") == 6
    assert number_of(0, BLOCK, "resid_pre") == -1


@given(data=st.binary(max_size=200))
def test_a_file_of_noise_is_no_format(data, tmp_path_factory):
    path = tmp_path_factory.mktemp("noise") / "noise"
    path.write_bytes(data)
    found = recognise(path)
    # What begins like a format is taken for it, and fails when it is read.
    assert found is None or data[:4] == b"GGUF" or data[8:9] == b"{" or data[:1] in b"{\x93 \n\t"
