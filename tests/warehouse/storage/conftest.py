"""The sound warehouse of the tests of maintenance, wherever it lies."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from axes.warehouse.maintenance.subset import subset
from axes.warehouse.storage.roots import root_path


@pytest.fixture
def s3_lake(sound: Path, s3: str) -> Path:
    """A copy of the sound warehouse on the server."""
    root = root_path(s3)
    subset(sound, root)
    return root


@pytest.fixture(params=["folder", "s3"])
def any_lake(request: pytest.FixtureRequest, sound: Path, tmp_path: Path) -> Path:
    """A copy of the sound warehouse, on a disk and on the server."""
    if request.param == "folder":
        return shutil.copytree(sound, tmp_path / "lake")
    return request.getfixturevalue("s3_lake")
