"""Flag, environment, axes.toml, default: whichever comes first is what a command gets."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest

from axes.warehouse.settings import SETTINGS
from axes.warehouse.storage.layout import init_root
from docs.generate import commands
from tests.commands import axes, printed, refused


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    init_root(tmp_path / "project-lake")
    return tmp_path


def write(here: Path, text: str) -> None:
    """A file that the user allowed; one that cannot be read as settings cannot be."""
    (here / "axes.toml").write_text(text)
    axes("config", "allow")


INGEST = "ingest activations m --prompts p"


@pytest.mark.parametrize(
    ("text", "command", "key"),
    [
        ('judge_url = "http://stranger/v1"\njudge_model = "m"', "label judge", "judge_url"),
        ('root = "elsewhere"', "warehouse init", "root"),
        ('[ingest.activations]\npooling = ["pool.py"]', INGEST, "pooling"),
        ("[ingest.activations]\nadapter = 'hf:stranger/a'", INGEST, "adapter"),
        ('[sql]\nformat = "csv"', "sql x", "sql.format"),
    ],
)
def test_a_file_that_came_with_a_folder_acts_only_after_it_was_allowed(here, text, command, key):
    (here / "axes.toml").write_text(text)
    before = sorted(here.rglob("*"))
    last = refused(*command.split())
    assert f"{here}/axes.toml sets " in last and key in last and "axes config allow" in last
    assert sorted(here.rglob("*")) == before
    sources = {row["setting"]: row["source"] for row in shown("config", "show")}
    assert f"{here}/axes.toml (not allowed)" in sources.values()
    (finding,) = (row for row in shown("doctor", "--root", "x") if row["check"] == "settings")
    assert finding["result"] == "note" and "axes config allow" in finding["to_do"]
    allowed = axes("config", "allow")
    assert allowed.stdout.startswith(f"allowed {here}/axes.toml: ")
    sources = {row["setting"]: row["source"] for row in shown("config", "show")}
    assert f"{here}/axes.toml" in sources.values()
    (finding,) = (row for row in shown("doctor", "--root", "x") if row["check"] == "settings")
    assert finding["result"] == "pass" and f"{here}/axes.toml sets " in finding["detail"]


def test_what_is_typed_needs_nothing_of_a_file_that_was_not_allowed(here, monkeypatch):
    (here / "axes.toml").write_text("root = 'elsewhere'")
    ask = ("sql", "select 1 as one", "--format", "csv")
    assert "axes config allow" in refused(*ask)
    assert axes(*ask, "--root", "project-lake").stdout == "one\n1\n"
    monkeypatch.setenv("AXES_ROOT", "project-lake")
    assert axes(*ask).stdout == "one\n1\n"
    assert axes("sql", "--help").exit_code == 0


def shown(*command: str) -> list[dict[str, str]]:
    return json.loads(axes(*command, "--format", "json").stdout)


def test_flag_environment_file_default(here, monkeypatch):
    ask = ("sql", "select 1 as one")
    assert "lake is not a warehouse" in refused(*ask)
    write(here, 'root = "project-lake"\nformat = "json"')
    assert json.loads(axes(*ask).stdout) == [{"one": 1}]
    monkeypatch.setenv("AXES_FORMAT", "csv")
    assert axes(*ask).stdout == "one\n1\n"
    assert axes(*ask, "--format", "markdown").stdout.startswith("| one |")


def test_a_command_has_a_table_of_its_own(here):
    write(
        here,
        'root = "project-lake"\nformat = "json"\n'
        '[sql]\nformat = "csv"\n[warehouse.compact]\nfile-mb = 7\ntable = "runs"\n',
    )
    assert axes("sql", "select 1 as one").stdout == "one\n1\n"
    assert json.loads(axes("warehouse", "compact").stdout) == []
    found = json.loads(axes("config", "show").stdout)
    sources = {row["setting"]: (row["value"], row["source"]) for row in found}
    path = str(here / "axes.toml")
    assert sources["warehouse.compact.file-mb"] == ("7", path)
    assert sources["root"] == (str(here / "project-lake"), path)
    assert sources["device"][1] == "default"


def test_config_show_says_that_the_environment_won(here, monkeypatch):
    (here / "axes.toml").write_text('device = "cpu"')
    monkeypatch.setenv("AXES_DEVICE", "cuda:1")
    (row,) = (row for row in printed("config", "show") if row["setting"] == "device")
    assert row["value"] == "cuda:1" and row["source"] == "environment AXES_DEVICE"


def test_config_path_says_which_file_is_there(here, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(here / "xdg"))
    (here / "axes.toml").write_text("")
    near, far = axes("config", "path").stdout.splitlines()
    assert near == str(here / "axes.toml") and far.endswith("safety-axes/axes.toml (not there)")


@pytest.mark.parametrize(
    ("text", "command", "message"),
    [
        ('rot = "x"', "sql x", "unknown key rot (did you mean root?)"),
        ("[sqll]", "list models", "[sqll] is not a command (did you mean sql?)"),
        ("[warehouse.compct]", "warehouse stats", "compct (did you mean compact?)"),
        ("[sql]\nformt = 'csv'", "sql x", "axes sql has no option formt (did you mean format?)"),
        ("[sql]\nformat = 'cvs'", "sql x", "sql.format: 'cvs' is not one of"),
        ("format = 'cvs'", "sql x", "format: 'cvs' is not one of"),
        ("memory_limit = 'much'", "fit m --prompts p", "'much' is not a size"),
        ("warehouse = 1", "warehouse stats", "unknown key warehouse"),
        ("[warehouse]\ncompact = 1", "warehouse stats", "compact is a value, expected the table"),
    ],
)
def test_what_a_file_says_wrongly_is_named_with_the_file(here, text, command, message):
    write(here, text)
    last = refused(*command.split())
    assert message in last and str(here / "axes.toml") in last


def test_config_show_checks_the_tables_of_all_commands(here):
    write(here, "[ingest.activations]\ntoken_budgt = 1")
    assert "did you mean token_budget?" in refused("config", "show")


def test_help_works_beside_a_file_that_is_wrong(here):
    (here / "axes.toml").write_text("nonsense")
    assert axes("--help").exit_code == 0


def test_a_configured_option_does_not_count_as_typed(here):
    """An output's suffix, and options of the other kind of job, go before what is configured."""
    write(here, 'root = "project-lake"\nformat = "json"')
    assert axes("sql", "select 1 as one", "-o", "x.csv").exit_code == 0
    assert (here / "x.csv").read_text() == "one\n1\n"


@pytest.mark.parametrize(("path", "command"), commands(), ids=lambda value: str(value)[:40])
def test_options_of_one_name_are_one_setting(path, command):
    """So that a key of axes.toml holds for every command that has the option."""
    for option in command.params:
        if isinstance(option, click.Option):
            key = max(option.opts, key=len).lstrip("-").replace("-", "_")
            if key in SETTINGS:
                assert option.envvar == SETTINGS[key].variable, f"{path} --{key}"
