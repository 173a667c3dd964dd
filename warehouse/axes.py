"""Which registered axis a user means."""

from __future__ import annotations

from typing import Any

from axes.warehouse.connection import Connection, query, rows, vectors
from axes.warehouse.errors import AxisError
from axes.warehouse.names import did_you_mean


def find_axis(connection: Connection, axis: str) -> dict[str, Any]:
    """The row of `axes` with this id, id prefix or name, and the vector as float32 `[d_model]`.

    Raises `AxisError` where none or several fit.
    """
    table = query(
        connection,
        "from axes where axis_id = $axis or name = $axis "
        "or (length($axis) >= 6 and starts_with(axis_id, $axis)) order by run_id",
        {"axis": axis},
    )
    if table.num_rows == 0:
        raise unknown_axis(connection, axis)
    found = table.drop_columns(["vector"]).to_pylist()
    if len(found) > 1:
        ids = "; ".join(f"{row['axis_id']} ({row['name']}, run {row['run_id']})" for row in found)
        raise AxisError(f"{len(found)} axes fit {axis}, give one id: {ids}")
    return {**found[0], "vector": vectors(table.column("vector"))[0]}


def unknown_axis(connection: Connection, axis: str) -> AxisError:
    """The error that no axis has this id or name."""
    names = [row["name"] for row in rows(connection, "select distinct name from axes")]
    return AxisError(
        f"no axis {axis}{did_you_mean(axis, names)}: "
        'give an id or a name of `axes sql "select axis_id, name from axes"`'
    )
