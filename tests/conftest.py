"""What every test starts from: a cache and a home of its own, no network, one thread."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

# The hub library reads this once, when it is imported.
os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import torch

from axes.warehouse.layout import init_root
from axes.warehouse.settings import SETTINGS

# No test cuts the power: that files are synced, and when, is read from the calls (test_writer.py).
os.fsync = lambda descriptor: None


@pytest.fixture(scope="session", autouse=True)
def _home(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What fixtures of modules start from: they are made before `_isolated`."""
    for variable in ("AXES_CACHE", "XDG_CONFIG_HOME"):
        os.environ[variable] = str(tmp_path_factory.mktemp("home"))


@pytest.fixture(autouse=True)
def _isolated(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the user's cache or warehouse, or reaches a hub."""
    monkeypatch.setenv("AXES_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
    for name in SETTINGS:
        if name != "cache":
            monkeypatch.delenv(SETTINGS[name].variable, raising=False)
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def empty_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty warehouse, not to be written to."""
    folder = tmp_path_factory.mktemp("empty") / "lake"
    init_root(folder)
    return folder


@pytest.fixture
def root(empty_root: Path, tmp_path: Path) -> Path:
    """An empty warehouse."""
    return shutil.copytree(empty_root, tmp_path / "lake")
