"""How every command behaves, those that are yet to be written included."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys

import click
import pytest

from axes.cli.main import _COMMANDS, _SECTIONS
from axes.cli.options import AXIS, CALIBRATIONS, FORMATS, MODEL
from axes.warehouse.connection import connect
from docs.generate import commands
from tests.commands import axes, imported_by

DUCKDB = {"duckdb", "pyarrow", "numpy"}
HEAVY = DUCKDB | {
    *("torch", "transformers", "sklearn", "scipy", "pandas", "polars", "altair", "filelock"),
    *("pyarrow.compute", "pyarrow.dataset", "rich", "prompt_toolkit", "huggingface_hub"),
}

# These print a path, a page or nothing, and no rows.
WITHOUT_ROWS = {
    "axes export",
    "axes explore",
    "axes report",
    "axes models fetch",
    "axes warehouse init",
    "axes warehouse open",
    "axes config allow",
    "axes config path",
    "axes completion",
}

LEAVES = {path: command for path, command in commands() if not isinstance(command, click.Group)}


def python(script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=120,
    )


def test_no_help_imports_a_heavy_library():
    """Command by command in one process, so that the first that does is named."""
    script = f"""
import sys
from click.testing import CliRunner
from axes.cli.main import _COMMANDS, cli
for words in ([], *([name] for name in _COMMANDS)):
    assert CliRunner().invoke(cli, [*words, "--help"]).exit_code == 0, words
    print(words, sorted({HEAVY!r} & set(sys.modules)))
"""
    done = python(script)
    lines = done.stdout.splitlines()
    assert len(lines) == len(_COMMANDS) + 1, done.stderr
    assert [line for line in lines if not line.endswith(" []")] == []


@pytest.mark.parametrize(
    ("words", "needed"),
    [
        ("sql 'select 1'", DUCKDB),
        ("sql --format json 'from v_auroc'", DUCKDB),
        ("sql --safe 'select 1'", DUCKDB),
        ("list axes", DUCKDB),
        ("list poolings", DUCKDB),
        ("list prompt-sets", DUCKDB | {"polars"}),
        ("warehouse stats", DUCKDB - {"duckdb"} | {"pandas", "pyarrow.compute"}),
        (
            "warehouse check",
            HEAVY - {"torch", "transformers", "sklearn", "scipy", "polars", "rich"},
        ),
    ],
)
def test_a_command_imports_only_the_libraries_that_it_uses(root, words, needed):
    """On a root that has been opened before: the first time, its index of keys is written."""
    connect(root)
    assert imported_by(*shlex.split(words), "--root", root) & HEAVY <= needed


def test_importing_axes_imports_no_library():
    done = python(f"import sys, axes; print(sorted({HEAVY!r} & set(sys.modules)), len(dir(axes)))")
    assert done.stdout.startswith("[] "), done.stderr


@pytest.mark.parametrize("path", LEAVES)
def test_every_command_that_prints_rows_has_a_format(path):
    """A new command without rows is added to the list above; any other takes `format_option`."""
    named = {option: param for param in LEAVES[path].params for option in param.opts}
    if path in WITHOUT_ROWS:
        return
    assert "--format" in named, path
    assert isinstance(named["--format"].type, click.Choice)
    assert set(FORMATS) <= set(named["--format"].type.choices)


def asked_of_a_root(command: click.Command) -> bool:
    """Whether `--root` and `--format` are all that a command needs."""
    names = {option for param in command.params for option in param.opts}
    return {"--root", "--format"} <= names and not any(param.required for param in command.params)


@pytest.mark.parametrize(
    "path", [path for path, command in LEAVES.items() if asked_of_a_root(command)]
)
def test_json_is_one_document_and_nothing_else_is_on_stdout(path, root):
    result = axes(*path.split()[1:], "--root", root, "--format", "json")
    assert result.exit_code in (0, 1, 2), result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    if result.stdout:
        json.loads(result.stdout)
    else:
        assert result.stderr.strip().splitlines()[-1].startswith("Error: ")


def test_help_lists_every_command_once_in_its_section():
    lines = axes("--help").stdout.partition("Data:\n")[2].splitlines()
    titles = ["Data", *(line[:-1] for line in lines if line.endswith(":"))]
    assert titles == list(_SECTIONS)
    assert [line.split()[0] for line in lines if line.startswith("  ")] == list(_COMMANDS)


# Another role of a model, two versions of one, a setting, and properties of one that is imported.
_ROLES = {"--reference", "--judge-model", "--other-model", "--model-card", "--d-model"}
_ROLES |= {"first", "second"}
# Commands that concern one model, which is not an argument.
_SINGLE = {"axes import", "axes activations import", "axes label", "axes diagnose", "axes explain"}


@pytest.mark.parametrize("path", LEAVES)
def test_one_thing_has_one_name_in_all_commands(path):
    for param in LEAVES[path].params:
        name = max(param.opts, key=len)
        is_option = isinstance(param, click.Option)
        words = name.lstrip("-").split("-") if is_option else []
        assert not {"least", "most", "greatest", "bound", "than"} & {*words}, name
        if param.type is AXIS or "axis" in words or "axes" in words:
            assert name == "--axis" if is_option else param.human_readable_name[:4] == "AXIS"
            assert param.type is AXIS
        if (param.type is MODEL or "model" in words) and name not in _ROLES:
            if is_option:
                assert name == "--model"
                assert param.multiple or any(path.startswith(start) for start in _SINGLE)
            elif not is_option:
                assert param.name == "model"
        if "fraction" in words:
            assert name in ("--layer-fraction", "--fit-fraction")
        if isinstance(param.type, click.Choice) and {*param.type.choices} <= {*CALIBRATIONS}:
            assert name == "--calibration"


def test_a_help_page_names_only_options_of_its_command():
    for path, command in LEAVES.items():
        options = {option for param in command.params for option in param.opts}
        for param in command.params:
            # Without other commands that it names in backticks.
            text = re.sub("`axes [^`]*`", "", getattr(param, "help", None) or "")
            named = {*re.findall(r"(?<![-\w])--[a-z][a-z-]*", text)}
            assert named <= options, f"{path} {param.name}: {named - options}"


@pytest.mark.parametrize("path", LEAVES)
def test_an_unknown_option_is_a_usage_error(path):
    result = axes(*path.split()[1:], "--no-such-option")
    assert result.exit_code == 2, result.output
    assert result.stdout == "" and "Error: " in result.stderr


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (("evalute",), "Did you mean 'evaluate'?"),
        (("warehouse", "compct"), "Did you mean 'compact'?"),
        (("sql", "--fromat", "csv"), "--format"),
        (("study", "clims"), "(did you mean claims?)"),
        (("study", "dmo"), "(did you mean demo?)"),
        (("study", "--group", "dmeo", "--prompts", "a", "--align", "b"), "(did you mean demo?)"),
        (("ingest", "activations", "smolm2-135m", "--prompts", "p"), "did you mean smollm2-135m?"),
        (("prompts", "import", "demo_safty"), "(did you mean demo_safety?)"),
    ],
)
def test_a_typo_is_answered_with_what_was_meant(words, meant, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = axes(*words)
    assert result.exit_code in (1, 2) and meant in result.stderr


def test_exit_codes(root, monkeypatch, tmp_path):
    assert axes("sql", "select 1", "--root", root).exit_code == 0
    assert axes("sql", "select nonsense", "--root", root).exit_code == 1
    assert axes("sql", "select 1", "--root", tmp_path / "nowhere").exit_code == 1
    assert axes("sql", "--format", "yaml").exit_code == 2
    assert axes("nonsense").exit_code == 2

    def interrupted(*_arguments: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("axes.warehouse.connection.connect_unlocked", interrupted)
    result = axes("sql", "select 1", "--root", root)
    assert result.exit_code == 130 and "run the same command again" in result.stderr


def test_a_json_log_is_json_to_the_last_line(root, tmp_path):
    for arguments in (["sql", "select nonsense", "--root", str(root)], ["sql", "--fromat"]):
        result = axes("--json-log", *arguments)
        events = [json.loads(line) for line in result.stderr.splitlines()]
        assert events[-1]["event"] == "exit"
        assert events[-1]["exit_code"] == result.exit_code in (1, 2)
        assert events[-2]["level"] == "error" and not events[-2]["text"].startswith("Error")
    result = axes("--json-log", "prompts", "import", "demo_safety", "--root", root)
    events = [json.loads(line) for line in result.stderr.splitlines()]
    assert [event.get("status") for event in events] == ["running", "finished", None]
    assert "600" in result.stdout


@pytest.mark.parametrize(("value", "is_json"), [("1", True), ("0", False), ("", False)])
def test_the_environment_and_the_file_turn_the_json_log_on(value, is_json, root, monkeypatch):
    monkeypatch.setenv("AXES_JSON_LOG", value)
    result = axes("prompts", "list", "--root", root)
    assert result.stderr.startswith("{") is is_json
    monkeypatch.chdir(root)
    (root / "axes.toml").write_text("json_log = true")
    monkeypatch.delenv("AXES_JSON_LOG")
    assert axes("prompts", "list", "--root", root).stderr.startswith("{")
    assert not axes("--no-json-log", "prompts", "list", "--root", root).stderr.startswith("{")


def test_no_color_holds_on_a_terminal():
    """On a pseudo-terminal, bars are drawn in colour, and with NO_COLOR without."""
    script = "import pty, sys; pty.spawn([sys.executable, '-c', sys.argv[1]])"
    job = "from axes.warehouse.progress import track\nwith track('step', 2, 'u') as a: a(2)"
    coloured = python(script, job, TERM="xterm-256color", NO_COLOR="").stdout
    plain = python(script, job, TERM="xterm-256color", NO_COLOR="1").stdout
    assert "step" in coloured and "step" in plain
    assert "\x1b[38;" in coloured or "\x1b[3" in coloured
    assert "\x1b[38;" not in plain and "\x1b[36m" not in plain
