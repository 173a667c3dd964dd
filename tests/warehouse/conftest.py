"""One sound warehouse for all tests that read it or spoil a copy of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.once import made_once
from tests.warehouse.sound import put_warehouse


@pytest.fixture(scope="session")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The warehouse of `put_warehouse`, not to be written to."""
    return made_once(tmp_path_factory, "sound", put_warehouse)


@pytest.fixture
def lake(sound: Path, tmp_path: Path) -> Path:
    """A copy of it, to be spoilt."""
    return shutil.copytree(sound, tmp_path / "lake")
