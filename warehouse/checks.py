"""Run the queries of sql/checks: each returns the rows that break a rule, none when all is well."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from warehouse.connection import connect, query, sql_files


def check(root: Path) -> pa.Table:
    """One row per check: its name, the rows that break it, and the first of them as text."""
    connection = connect(root)
    names, counts, examples = [], [], []
    for name, statement in sql_files("checks").items():
        offending = query(connection, statement)
        names.append(name)
        counts.append(offending.num_rows)
        first = offending.slice(0, 1).to_pylist()
        fields = first[0].items() if first else ()
        examples.append(", ".join(f"{key} {value}" for key, value in fields))
    return pa.table({"check": names, "row_count": counts, "example": examples})
