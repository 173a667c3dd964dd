"""One sound warehouse for all tests that read it or spoil a copy of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.warehouse.sound import put_warehouse


@pytest.fixture(scope="session")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The warehouse of `put_warehouse`, not to be written to."""
    folder = tmp_path_factory.mktemp("sound") / "lake"
    put_warehouse(folder)
    return folder


@pytest.fixture
def lake(sound: Path, tmp_path: Path) -> Path:
    """A copy of it, to be spoilt."""
    return shutil.copytree(sound, tmp_path / "lake")
