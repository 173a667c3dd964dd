"""Queried rows as JSON for a page: what JSON has no type for as text, hidden texts as numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa

from axes.explore.hiding import Hidden, positive_cells, texts_in
from axes.warehouse.connection import Connection

# A vector is shown by its first numbers.
_LONGEST_LIST = 8
_SHOWN_OF_LIST = 4
# Beyond it JavaScript has no integers.
_LARGEST_EXACT = 2**53


def answer(
    table: pa.Table, connection: Connection, hidden: Hidden, *, row_limit: int
) -> dict[str, Any]:
    """The first rows with names and kinds of the columns, positive texts hidden."""
    columns = [{"name": field.name, "kind": kind_of(field.type)} for field in table.schema]
    shown = table.slice(0, row_limit)
    rows = [list(row) for row in zip(*(column.to_pylist() for column in shown), strict=True)]
    concealed = positive_cells(connection, (text for row in rows for text in texts_in(row)))
    return {
        "columns": columns,
        "rows": [[_cell(value, concealed, hidden) for value in row] for row in rows],
        "row_count": table.num_rows,
    }


def _cell(value: Any, concealed: set[str], hidden: Hidden) -> Any:
    shown = plain(value)
    if concealed and not concealed.isdisjoint(texts_in(value)):
        return hidden.put(shown if isinstance(shown, str) else str(shown))
    return shown


def kind_of(kind: pa.DataType) -> str:
    """number, time, boolean, or text for everything else."""
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return "number"
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return "time"
    return "boolean" if pa.types.is_boolean(kind) else "text"


def plain(value: Any) -> Any:
    """A value as JSON has it: lists and structs as text, long lists cut, NaN in words."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return value if abs(value) <= _LARGEST_EXACT else str(value)
    if isinstance(value, Decimal):
        return plain(int(value) if value == value.to_integral_value() else float(value))
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {plain(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return f"[{_joined(value)}]"
    return str(value)


def _joined(values: list[Any]) -> str:
    cut: Iterable[Any] = values if len(values) <= _LONGEST_LIST else values[:_SHOWN_OF_LIST]
    text = ", ".join(f"{plain(value)}" for value in cut)
    return text if len(values) <= _LONGEST_LIST else f"{text}, … {len(values):,} in all"
