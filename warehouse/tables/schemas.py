"""Every table by name: the only list of them, and of their columns.

Each table is one Parquet data set below the root, hive-partitioned by `partition`.
"""

from __future__ import annotations

from axes.warehouse.tables.columns import Table
from axes.warehouse.tables.fitted import FITTED_TABLES
from axes.warehouse.tables.generation import GENERATION_TABLES
from axes.warehouse.tables.ingest import INGEST_TABLES

SCHEMA_VERSION = 2

TABLES: dict[str, Table] = {
    table.name: table for table in (*INGEST_TABLES, *FITTED_TABLES, *GENERATION_TABLES)
}
