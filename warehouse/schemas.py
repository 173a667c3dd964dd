"""Every table by name: the only list of them, and of their columns.

Each table is one Parquet data set below the root, hive-partitioned by `partition`.
"""

from __future__ import annotations

from warehouse.answer_tables import ANSWER_TABLES
from warehouse.columns import Table
from warehouse.fitted_tables import FITTED_TABLES
from warehouse.ingest_tables import INGEST_TABLES

SCHEMA_VERSION = 2

TABLES: dict[str, Table] = {
    table.name: table for table in (*INGEST_TABLES, *FITTED_TABLES, *ANSWER_TABLES)
}
