"""A typo in the name of a prompt set is an error of the command line: no run is recorded."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from axes.warehouse.connection import connect, rows
from tests.commands import axes

MODELS = ("--model", "alpha", "--model", "beta")
COMMANDS = [
    ("fit", "alpha", "--prompts", "labeled"),
    ("fit", "alpha", "--prompts", "labelled", "--evaluate", "labeled"),
    ("score", "universal", "--prompts", "labeled"),
    ("evaluate", "alpha", "--prompts", "labeled"),
    ("calibrate", "universal", "--prompts", "labeled"),
    ("route", "--prompts", "labeled", "--labeler", "dataset", *MODELS),
    ("compare", "--prompts", "labeled", "--labeler", "dataset", *MODELS),
    ("label", "refusals", "--prompts", "labeled"),
    ("study", "--prompts", "labeled", "--align", "benign", *MODELS, "--reference", "beta"),
]


@pytest.fixture(scope="module")
def lake(reported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shutil.copytree(reported, tmp_path_factory.mktemp("typo") / "lake")


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words[:2]))
def test_a_typo_leaves_no_run(lake: Path, words: tuple[str, ...]) -> None:
    before = rows(connect(lake), "from runs order by run_id")
    result = axes(*words, "--root", lake)
    assert result.exit_code != 0 and "labeled" in result.output
    assert rows(connect(lake), "from runs order by run_id") == before
