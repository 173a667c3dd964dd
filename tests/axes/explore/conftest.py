"""One warehouse to look at, for every test that only reads it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.explored import put_explored


@pytest.fixture(scope="session")
def explored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The warehouse of `tests.explored`, not to be written to."""
    root = tmp_path_factory.mktemp("explored") / "lake"
    put_explored(root)
    return root
