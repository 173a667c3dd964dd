"""The command line that a run stores is that of the command, whatever gave it its values."""

from __future__ import annotations

import shlex
from pathlib import Path

import click
import pytest

from axes.cli.main import cli
from axes.cli.study import _planned
from axes.command_line import as_command, of_call, of_context
from axes.warehouse.connection import connect, rows
from axes.warehouse.maintenance.repair import restore_commands
from axes.warehouse.runs import record_run
from axes.warehouse.settings import command_line

STUDY = "study run --model a --model b --reference b --prompts mine --align benign"
COMMANDS = [
    "study run --group demo --prompts demo_safety --align demo_alignment",
    f"{STUDY} --evaluate one --evaluate two --align-rows 50 --layer-policy cross_validated "
    "--direction whitened --alignment procrustes --no-scale --alignment-shuffles 3 "
    "--universal mean --site mlp_out --pooling last --template chat --seed 3 --allow-missing",
    f"{STUDY} --alignment reduced_rank --ridge-lambda 7 --rank 2",
    "study run demo --seed 0",
    "prompts import mine words.csv --text-column words --positive bad --positive worse --limit 3",
    "prompts import manner --positive-file a.csv --negative-file b.csv --unpaired",
    "ingest activations words.csv --prompts one --prompts two --layers 0,12 --site mlp_out "
    "--pooling last --keep-tokens 3 --template chat --system words.csv --no-share-prefix",
    "ingest traces m --prompts one --template chat --template-option enable_thinking=false "
    "--template-option effort=low '--assistant-prefill=- Sure, '",
    "ingest traces m --prompts one --stop 'a b;c' --end-token A --temperature 0.5 --samples 2",
    "intervene m --axis x --prompts one --benign two --strengths=-0.1,0.1 --min-projection 0.5",
    "label judge --judge-url http://localhost/v1 --judge-model big --judge-template words.csv",
    "drift --axis x --model m --prompts one --seed 3 --min-steps 4",
    "calibrate x --prompts one --model m --calibration isotonic --fit-fraction 0.4",
    "import words.csv --model m --layer 3 --name n",
    "activations import words.csv --model m --layer-count 3 --layers-are blocks --skip-normed",
]


def parsed(words: list[str]) -> click.Context:
    """The innermost context of a command line."""
    command: click.Command = cli
    context = command.make_context("axes", words)
    while isinstance(command, click.Group):
        name, *words = [*context._protected_args, *context.args]
        following = command.get_command(context, name)
        assert following is not None
        command, context = following, following.make_context(name, words, parent=context)
    return context


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("words.csv", "a.csv", "b.csv"):
        (tmp_path / name).write_text("words\n")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_line_of_a_command_is_that_command(command: str, tmp_path: Path) -> None:
    context = parsed(shlex.split(command))
    line = of_context(context)
    again = parsed(shlex.split(line)[1:])
    assert again.command is context.command
    assert of_context(again) == line
    for name, value in context.params.items():
        is_file = value in ("words.csv", "a.csv", "b.csv") or isinstance(value, Path)
        expected = tmp_path / str(value) if is_file and (tmp_path / str(value)).exists() else value
        assert str(again.params[name]) == str(expected), name
    if command.startswith("study"):
        planned = []
        for same in (context, again):
            with same:
                planned += [item.definition for item in _planned(same.params["file"])]
        assert planned[0] == planned[1]


def test_values_of_the_environment_are_written_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AXES_DTYPE", "bfloat16")
    monkeypatch.setenv("AXES_ROOT", "elsewhere")
    context = parsed(["ingest", "activations", "m", "--prompts", "one", "--format", "json"])
    assert of_context(context) == "axes ingest activations m --dtype bfloat16 --prompts one"


def test_a_python_call_is_the_command_that_does_the_same() -> None:
    arguments = {"model": "m", "prompts": "one", "layers": [1, 2], "limit": None, "root": "x"}
    line = "axes ingest activations m --prompts one --layers 1,2"
    assert of_call(cli, "ingest activations", arguments) == line

    @as_command(cli, "prompts import")
    def bring(prompt_set: str, text_column: str | None = None) -> str | None:
        return command_line()

    assert bring("mine", text_column="words") == ("axes prompts import mine --text-column words")
    assert command_line() is None


def test_repair_prints_the_stored_line_and_no_second_command(root: Path) -> None:
    @as_command(cli, "fit")
    def job(model: str) -> str:
        with record_run(root, "fit", {}) as run:
            return run.run_id

    run_id = job("m; rm -rf x")
    (row,) = rows(connect(root), "select command_line from runs")
    assert row["command_line"] == "axes fit 'm; rm -rf x'"
    assert restore_commands(root, [run_id])[run_id] == f"axes fit 'm; rm -rf x' --root {root}"
    with record_run(root, "fit", {}) as run:
        pass
    assert "Python code ran fit" in restore_commands(root, [run.run_id])[run.run_id]
    assert "is unknown" in restore_commands(root, ["none"])["none"]
