"""What lies where is told by footers, and agrees with what SQL counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from axes.warehouse.connection import connect, rows
from axes.warehouse.errors import RootError
from axes.warehouse.maintenance.statistics import statistics
from axes.warehouse.tables.schemas import TABLES
from tests.warehouse.sound import LAYERS


def test_rows_and_bytes_are_those_of_the_files(sound: Path) -> None:
    found = statistics(sound)
    connection = connect(sound)
    for table in TABLES:
        counted = rows(connection, f"select count(*) as n from {table}")[0]["n"]
        assert sum(item.rows for item in found if item.table == table) == counted
    (extent,) = (item for item in found if (item.table, item.partition) == ("activations", "m"))
    files = list((sound / "activations" / "model=m").iterdir())
    assert extent.files == len(files) == 3
    assert extent.row_groups == 3 * len(LAYERS)
    assert extent.bytes == sum(path.stat().st_size for path in files)
    assert extent.smallest_bytes == min(path.stat().st_size for path in files)
    assert "owner/n" in {item.partition for item in found}


def test_an_empty_warehouse_holds_nothing(root: Path) -> None:
    assert statistics(root) == []


def test_a_broken_footer_is_one_line(lake: Path) -> None:
    path = next((lake / "activations" / "model=m").iterdir())
    path.write_bytes(b"PAR1")
    with pytest.raises(RootError, match=rf"{path.name} cannot be read: run `axes warehouse check`"):
        statistics(lake)
