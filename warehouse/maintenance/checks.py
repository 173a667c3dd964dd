"""Is a root sound? The rules of sql/checks over its rows, and its files against the ledger."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from axes.warehouse.connection import connect, query, sql_files
from axes.warehouse.errors import QueryError, RootError
from axes.warehouse.layout import require_root
from axes.warehouse.maintenance.check import inspect_files

_SCHEMA = pa.schema(
    [
        ("check", pa.string()),
        ("row_count", pa.int64()),
        ("path", pa.string()),
        ("example", pa.string()),
        ("to_do", pa.string()),
    ]
)
FILE_CHECKS = (
    "file_lost",
    "file_unlisted",
    "file_foreign",
    "file_unreadable",
    "file_schema",
    "file_changed",
    "vector_finite",
    "vector_width",
)
_REPAIR = "axes warehouse repair sets it aside and says how the rows come back"
_TO_DO = {
    "file_lost": "axes warehouse repair says how the rows come back",
    "file_unlisted": "axes warehouse repair sets it aside, or with --adopt takes it in",
    "file_foreign": "axes warehouse repair sets it aside",
}


def check(root: Path, *, is_quick: bool = False) -> pa.Table:
    """One row per rule that holds, with `row_count` 0, and one per file or rule that does not.

    `row_count` counts the rows that break a rule, 1 for a file; `is_quick` leaves the contents of
    files unread and runs no rule over rows.
    """
    require_root(root)
    findings = inspect_files(root, is_quick=is_quick)
    broken = {finding.check for finding in findings}
    rows = [_row(name) for name in FILE_CHECKS if name not in broken]
    rows += [
        _row(item.check, 1, item.path, item.what, _TO_DO.get(item.check, _REPAIR))
        for item in findings
    ]
    if not is_quick:
        rows += _check_rules(root)
    return pa.Table.from_pylist(rows, schema=_SCHEMA)


def _check_rules(root: Path) -> list[dict]:
    rules = sql_files("checks")
    try:
        connection = connect(root)
    except RootError as error:
        return [_row(name, 1, None, f"not run: {error}", _REPAIR) for name in rules]
    rows = []
    for name, statement in rules.items():
        try:
            offending = query(connection, statement)
        except QueryError as error:
            rows.append(_row(name, 1, None, f"not run: {error}", "repair the files first"))
            continue
        first = offending.slice(0, 1).to_pylist()
        fields = ", ".join(f"{key} {value}" for key, value in (first[0] if first else {}).items())
        to_do = f"axes sql -f sql/checks/{name}.sql lists the rows" if first else None
        rows.append(_row(name, offending.num_rows, None, fields, to_do))
    return rows


def _row(
    check: str,
    row_count: int = 0,
    path: str | None = None,
    example: str = "",
    to_do: str | None = None,
) -> dict:
    return {
        "check": check,
        "row_count": row_count,
        "path": path,
        "example": example,
        "to_do": to_do,
    }
