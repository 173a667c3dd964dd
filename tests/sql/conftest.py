"""One empty warehouse for all tests that only read its views and macros."""

from __future__ import annotations

from pathlib import Path

import pytest

from axes.warehouse.connection import Connection, connect


@pytest.fixture(scope="session")
def empty(empty_root: Path) -> Connection:
    """A connection to a warehouse without rows."""
    return connect(empty_root, is_commented=True)
