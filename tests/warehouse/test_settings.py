from __future__ import annotations

from pathlib import Path

import pytest

from axes.warehouse.errors import ConfigError
from axes.warehouse.settings import config_files, locations, root_folder, setting


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
    import os

    os.utime(path, ns=(1, 1))
    assert setting("device") == "other"


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
