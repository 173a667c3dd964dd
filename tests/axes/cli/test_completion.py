"""What Tab offers, asked as the shells ask it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

from axes.cli.main import cli
from axes.cli.options import FORMATS
from axes.warehouse.storage.layout import init_root
from tests.commands import ok


def offered(*words: str) -> set[str]:
    """The completions of the last word."""
    *before, incomplete = words
    found = ShellComplete(cli, {}, "axes", "_AXES_COMPLETE").get_completions(before, incomplete)
    return {item.value for item in found if item.type == "plain"}


def test_commands_options_and_formats_are_completed():
    assert offered("warehouse", "co") == {"compact"}
    assert "--prompts" in offered("ingest", "activations", "--p")
    assert offered("sql", "--format", "") == set(FORMATS)


@pytest.mark.parametrize(
    "words",
    [
        *("ingest activations smol", "models fetch smol", "fit smol", "study --model smol"),
        *("score axis --model smol", "diagnose --model smol"),
    ],
)
def test_models_of_the_registry_are_completed(words):
    assert "smollm2-135m" in offered(*words.split())


@pytest.mark.parametrize(
    "words", ["ingest traces m --prompts demo_", "prompts import demo_", "study --align demo_"]
)
def test_ready_prompt_sets_are_completed(words):
    ready = {"demo_safety", "demo_alignment", "demo_formality", "demo_paraphrase"}
    assert offered(*words.split()) == ready


def test_what_the_warehouse_holds_is_completed(tmp_path, monkeypatch):
    root = tmp_path / "lake"
    init_root(root)
    (root / "activations" / "model=smolowner%2Fname").mkdir()
    (root / "prompts" / "prompt_set=demo_mine").mkdir()
    assert "smolowner/name" in offered("fit", "--root", str(root), "smol")
    monkeypatch.setenv("AXES_ROOT", str(root))
    assert "demo_mine" in offered("fit", "m", "--prompts", "demo_")


@pytest.mark.parametrize(
    "words", ["score", "export", "drift --axis", "intervene m --axis", "route --axis"]
)
def test_axes_of_the_warehouse_are_completed(words, studied, monkeypatch):
    monkeypatch.setenv("AXES_ROOT", str(studied))
    (name,) = offered(*words.split(), "universal/")
    assert name.startswith("universal/gamma/")


def test_studies_poolings_and_labelers_of_the_warehouse_are_completed(studied, monkeypatch):
    monkeypatch.setenv("AXES_ROOT", str(studied))
    (study_id,) = offered("report", "")
    assert {study_id, "demo"} <= offered("study", "diff", "")
    assert offered("diagnose", study_id[:4]) == {study_id}
    assert offered("fit", "m", "--pooling", "l") == {"last5_mean"}
    assert "dataset" in offered("route", "--labeler", "")


def test_study_completes_what_run_takes_and_the_studies_of_the_package():
    assert {"demo", "diff"} <= offered("study", "d")
    assert "original" in offered("study", "o")
    assert "--ridge-lambda" in offered("study", "--ri")


def test_a_wrong_axes_toml_breaks_no_completion(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "axes.toml").write_text("nonsense")
    assert "demo_safety" in offered("fit", "m", "--prompts", "demo_")
    assert offered("warehouse", "co") == {"compact"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_of_its_shell_and_asks_axes(shell):
    script = ok("completion", shell).stdout
    assert f"_AXES_COMPLETE={shell}_complete" in script
    of_shell = {"bash": "complete -o", "zsh": "#compdef axes", "fish": "complete --no-files"}
    assert of_shell[shell] in script


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_with_the_script(tmp_path: Path):
    """The script, sourced, in a bash whose `axes` is this one."""
    script = ok("completion", "bash").stdout
    command = tmp_path / "axes"
    command.write_text(
        f"#!{sys.executable}\nimport sys; sys.path.insert(0, {str(Path.cwd())!r})\n"
        "from axes.cli.main import main\nmain()\n"
    )
    command.chmod(0o755)
    (tmp_path / "script").write_text(script)
    ask = (
        f"PATH={tmp_path}:$PATH; source {tmp_path}/script; "
        "COMP_WORDS=(axes models fetch smol); COMP_CWORD=3; "
        "_axes_completion axes smol fetch; printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    done = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, timeout=60)
    assert "smollm2-135m" in done.stdout.split(), done.stderr
