from __future__ import annotations

import os
from pathlib import Path

import pytest

import axes
from axes.warehouse.errors import ConfigError, RootError
from axes.warehouse.settings import (
    SETTINGS,
    allow,
    config_files,
    locations,
    root_folder,
    setting,
)
from tests.commands import refused


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder two levels below where a project's file would lie."""
    folder = tmp_path / "project" / "a" / "b"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    return folder


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_the_environment_goes_before_the_nearest_file_and_that_before_xdg(
    here, tmp_path, monkeypatch
):
    assert setting("device") is None
    write(tmp_path / "xdg" / "safety-axes" / "axes.toml", 'device = "x"\ndtype = "float16"')
    assert (setting("device"), setting("dtype")) == ("x", "float16")
    write(tmp_path / "axes.toml", 'device = "far"')
    write(tmp_path / "project" / "axes.toml", 'device = "near"')
    assert (setting("device"), setting("dtype")) == ("near", "float16")
    monkeypatch.setenv("AXES_DEVICE", "told")
    assert setting("device") == "told"
    monkeypatch.setenv("AXES_DEVICE", "")
    assert setting("device") == "near"


def test_a_relative_path_starts_at_the_file_and_not_at_the_caller(here, tmp_path, monkeypatch):
    monkeypatch.delenv("AXES_CACHE")
    write(tmp_path / "project" / "axes.toml", 'root = "data/lake"\ncache = "/big"')
    allow()
    assert root_folder() == tmp_path / "project" / "data" / "lake"
    assert setting("cache") == "/big"
    assert root_folder("mine") == Path("mine")


def test_the_root_is_lake_where_nothing_says_otherwise(here):
    assert root_folder() == Path("lake")
    assert locations()[0] == here / "axes.toml"


def test_a_changed_file_is_read_again(here):
    path = write(here / "axes.toml", 'device = "one"')
    assert setting("device") == "one"
    path.write_text('device = "other"')
    os.utime(path, ns=(1, 1))
    assert setting("device") == "other"


HARMLESS = {"format", "device", "dtype", "memory_limit", "json_log"}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_file_of_somebody_sets_nothing_that_sends_fetches_runs_or_redirects_until_it_is_allowed(
    here, tmp_path, monkeypatch, name
):
    monkeypatch.delenv("AXES_CACHE")
    value, other = ("true", "false") if SETTINGS[name].kind is bool else ('"/one"', '"/other"')
    path = write(tmp_path / "project" / "axes.toml", f"{name} = {value}")
    if name in HARMLESS:
        assert setting(name)
        return
    refused = pytest.raises(ConfigError, match=f"{path} sets {name}.*read the file, then run")
    with refused:
        setting(name)
    allow()
    assert setting(name) == "/one"
    # Another content, or the same one at another place, was not read by anybody.
    write(path, f"{name} = {other}")
    os.utime(path, ns=(1, 1))
    with refused:
        setting(name)
    write(here / "axes.toml", f"{name} = {value}")
    with pytest.raises(ConfigError, match=f"{here}/axes.toml sets {name}"):
        setting(name)
    (here / "axes.toml").unlink()
    path.unlink()
    write(tmp_path / "xdg" / "safety-axes" / "axes.toml", f"{name} = {value}")
    assert setting(name) == "/one", "the user's own"


def test_nothing_is_allowed_where_no_file_is(here):
    with pytest.raises(ConfigError, match=f"no axes.toml in {here} or above it"):
        allow()


@pytest.mark.parametrize("border", ["nothing", "repository", "home", "owner", "file system"])
def test_the_search_ends_where_folders_of_others_may_begin(here, tmp_path, monkeypatch, border):
    project = tmp_path / "project"
    write(tmp_path / "axes.toml", 'device = "above"')
    if border == "repository":
        (project / ".git").mkdir()
    elif border == "home":
        monkeypatch.setenv("HOME", str(project))
    elif border != "nothing":
        stat, field = Path.stat, 4 if border == "owner" else 2

        def foreign(path: Path, **options: bool) -> os.stat_result:
            values = list(stat(path, **options)[:10])
            values[field] += path == tmp_path
            return os.stat_result(values)

        monkeypatch.setattr(Path, "stat", foreign)
    assert setting("device") == ("above" if border == "nothing" else None)
    if border in ("repository", "home"):
        write(project / "axes.toml", 'device = "top"')
        assert setting("device") == "top"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('rot = "lake"', r"unknown key rot \(did you mean root\?\): keys are root, cache"),
        ("root = 3", "root is 3, expected a text"),
        ("json-log = 1", "json_log is 1, expected true or false"),
        ("device = true", "device is true, expected a text"),
        ("root = ", "axes.toml is not TOML"),
    ],
)
def test_what_is_wrong_is_named_with_the_file(here, text, message):
    path = write(here / "axes.toml", text)
    with pytest.raises(ConfigError, match=message) as caught:
        config_files()
    assert str(path) in str(caught.value)


def test_a_root_that_is_a_url_makes_no_folder(here, tmp_path, monkeypatch):
    for url in ("ftp://user:secret@host/lake", "ftp:/host/lake", Path("ftp://host/lake")):
        with pytest.raises(RootError, match="cannot lie on ftp://") as refusal:
            root_folder(url)
        assert "secret" not in str(refusal.value)
    write(tmp_path / "project" / "axes.toml", 'root = "ftp://host/lake"')
    allow()
    message = refused("warehouse", "init")
    assert message == "Error: a warehouse cannot lie on ftp://: give a folder or s3://BUCKET"
    assert refused("sql", "select 1", "--root", "ftp://host/lake") == message
    assert refused("warehouse", "subset", "ftp://host/lake") == message
    monkeypatch.setenv("AXES_ROOT", "ftp://host/lake")
    assert refused("warehouse", "merge", "mine", "--root", "ftp://host/lake") == message
    assert refused("prompts", "import", "demo_safety") == message
    with pytest.raises(RootError, match="cannot lie on ftp://"):
        axes.connect()
    assert not list(here.iterdir())
    assert root_folder("C:/lake") == Path("C:/lake")
