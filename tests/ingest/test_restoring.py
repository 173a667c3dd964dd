"""The command that repair prints is the one that brings the rows back, whatever was lost."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from axes.warehouse.maintenance.repair import in_order, repair
from tests.commands import ok
from tests.ingest.conftest import activation_rows, read
from tests.warehouse.sound import broken

TEXTS = [f"prompt {index} {'x' * index}" for index in range(6)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, saved_llama: Path) -> Path:
    """A warehouse made by the commands: prompts, activations, traces of all kinds, labels."""
    tmp_path = tmp_path_factory.mktemp("restored")
    llama_folder, root = saved_llama, tmp_path / "made"
    labels = ["unsafe" if index % 2 else "safe" for index in range(len(TEXTS))]
    pl.DataFrame({"words": TEXTS, "label": labels}).write_csv(tmp_path / "texts.csv")
    source = tmp_path / "texts.csv"
    ok("prompts", "import", "texts", source, "--text-column", "words", "--root", root)
    ingest = ("--prompts", "texts", "--root", root)
    ok("ingest", "activations", llama_folder, "--layers", "0,2", *ingest)
    ok("ingest", "activations", llama_folder, "--template", "chat", "--pooling", "mean", *ingest)
    ok("ingest", "activations", llama_folder, "--keep-tokens", "1", *ingest)
    ok("ingest", "traces", llama_folder, "--max-new-tokens", "2", "--limit", "3", *ingest)
    drawn = ("--temperature", "1", "--samples", "2", "--stop", "z z", "--end-token", "A")
    kept = ("--prompt-tokens", "--top-tokens", "2", "--max-new-tokens", "2", "--limit", "1")
    ok("ingest", "traces", llama_folder, *drawn, *kept, *ingest)
    answers = tmp_path / "answers.csv"
    pl.DataFrame({"prompt": TEXTS[:1], "completion": ["I cannot."]}).write_csv(answers)
    ok("ingest", "traces", llama_folder, "--completions", answers, "--root", root)
    ok("label", "refusals", "--model", "tiny-llama", "--root", root)
    ok("label", "inherit", "--prompts", "texts", "--root", root)
    return root


@pytest.fixture
def lake(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "made")


def counts(root: Path) -> dict[str, int]:
    tables = ("prompts", "labels", "models", "prompt_tokens", "generations", "generation_tokens")
    return {name: read(root, f"select count(*) as n from {name}")[0]["n"] for name in tables}


def test_every_lost_row_comes_back_by_the_commands_that_are_printed(lake: Path) -> None:
    """Of files that are deleted and files that are cut short, in turn."""
    assert broken(lake) == []
    vectors, before = activation_rows(lake), counts(lake)
    for table in sorted(before.keys() | {"activations"}):
        paths = (path for path in (lake / table).rglob("*.parquet") if path.stem != "schema")
        for number, path in enumerate(sorted(paths)):
            if number % 2:
                path.unlink()
            else:
                path.write_bytes(path.read_bytes()[:-100])
    commands = in_order(repair(lake))
    assert len(commands) == 9 and all(command.startswith("axes ") for command in commands)
    for command in commands:
        ok(*shlex.split(command)[1:])
    assert counts(lake) == before
    found = activation_rows(lake)
    assert found.keys() == vectors.keys()
    for key, vector in vectors.items():
        np.testing.assert_allclose(found[key], vector, atol=1e-5, rtol=1e-5)
    assert broken(lake) == []


def test_a_lost_row_of_a_model_comes_back_though_nothing_else_is_missing(lake: Path) -> None:
    before = read(lake, "select * exclude (run_id) from models")
    (path,) = (path for path in (lake / "models").glob("*.parquet") if path.stem != "schema")
    path.unlink()
    (done,) = repair(lake)
    ok(*shlex.split(done.restore[0])[1:])
    assert read(lake, "select * exclude (run_id) from models") == before
    assert broken(lake) == []
