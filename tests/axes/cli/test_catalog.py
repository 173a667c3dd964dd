"""`axes list`: every name that another command takes can be found without SQL."""

from __future__ import annotations

from pathlib import Path

import pytest

from axes.cli.catalog import _STATEMENTS
from tests.commands import ok, printed


def listed(*words: str | Path) -> list[dict]:
    return printed("list", *words)


@pytest.mark.parametrize("noun", _STATEMENTS)
def test_every_kind_can_be_listed_of_an_empty_warehouse_too(noun, empty_root, studied):
    assert noun == "models" or listed(noun, "--root", empty_root) == []
    rows = listed(noun, "--root", studied)
    assert noun in ("calibrations", "scorings") or rows


def test_a_listed_name_is_taken_by_the_command_that_needs_it(lake):
    (axis,) = listed("axes", "universal", "--root", lake)
    (study,) = listed("studies", "--root", lake)
    assert study["models"] == "alpha, beta, gamma" and axis["model"] == "gamma"
    for words in (["score", axis["name"]], ["study", "claims", study["study_id"]]):
        ok(*words, "--root", lake)


def test_models_are_those_of_the_registry_and_of_the_warehouse_if_there_is_one(studied, tmp_path):
    registry = listed("models", "--root", tmp_path / "nowhere")
    assert not any(row["is_stored"] for row in registry)
    stored = [row for row in listed("models", "--root", studied) if row["is_stored"]]
    assert {row["model"] for row in stored} >= {"alpha", "beta", "gamma"}
    assert {row["group"] for row in stored} == {None}


def test_text_keeps_the_rows_that_contain_it(studied):
    sets = listed("prompt-sets", "benign", "--root", studied)
    assert [row["prompt_set"] for row in sets] == ["benign"]
