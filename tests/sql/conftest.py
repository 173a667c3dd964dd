"""One empty warehouse for all tests that only read its views and macros."""

from __future__ import annotations

import pytest

from axes.warehouse.connection import Connection, connect
from axes.warehouse.layout import init_root


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Connection:
    """A connection to a warehouse without rows."""
    root = tmp_path_factory.mktemp("empty") / "lake"
    init_root(root)
    return connect(root, is_commented=True)
