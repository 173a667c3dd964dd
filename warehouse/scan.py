"""A table of the warehouse as a polars LazyFrame, for those who think in polars."""

from __future__ import annotations

import glob
from pathlib import Path

import polars as pl
from polars.datatypes import DataType

from axes.warehouse.errors import QueryError
from axes.warehouse.layout import require_root
from axes.warehouse.names import did_you_mean
from axes.warehouse.tables.schemas import TABLES


def scan(table: str, root: Path) -> pl.LazyFrame:
    """A LazyFrame over a table's Parquet files, its columns in the order of the schema.

    The partition is text whatever its values look like, and a filter on it opens that partition's
    files alone. An empty table gives no rows. Raises `QueryError` for an unknown table and
    `RootError` where `root` is not a warehouse.
    """
    require_root(root)
    if table not in TABLES:
        raise QueryError(
            f"no table {table}{did_you_mean(table, TABLES)}: the tables are {', '.join(TABLES)}"
        )
    definition = TABLES[table]
    folders = "*/" if definition.partition else ""
    partition: dict[str, type[DataType]] | None = (
        {definition.partition: pl.String} if definition.partition else None
    )
    frame = pl.scan_parquet(
        f"{glob.escape((root.resolve() / table).as_posix())}/{folders}*.parquet",
        hive_partitioning=partition is not None,
        hive_schema=partition,
    )
    return frame.select(definition.schema.names)
