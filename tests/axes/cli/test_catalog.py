"""`axes list`: every name that another command takes can be found without SQL."""

from __future__ import annotations

from pathlib import Path

import pytest

from axes.cli.catalog import _STATEMENTS
from axes.ingest.models.registry import registry
from tests.commands import ok, printed, refused


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


def test_models_of_a_user_are_in_a_file_that_the_settings_name(tmp_path, monkeypatch):
    file = tmp_path / "models.toml"
    file.write_text('[my-model]\nsource = "hf:me/my-model"\nlicense = "mit"\n')
    monkeypatch.setenv("AXES_REGISTRY", str(file))
    registry.cache_clear()
    assert registry()["my-model"].source == "hf:me/my-model" and "smollm2-135m" in registry()
    file.write_text("[my-model]\nsauce = 1\n")
    registry.cache_clear()
    assert f"{file} is not a list of models" in refused("list", "models")
    monkeypatch.delenv("AXES_REGISTRY")
    registry.cache_clear()
