"""Models that no job here has run: others computed their vectors, and they were imported.

The column `source` of their row says so. What an import does not say of a model, or of a prompt, is
written as `UNKNOWN` or, where the column is a number, as 0.
"""

from __future__ import annotations

from axes.warehouse.connection import Connection, rows

IMPORTED = "imported"
UNKNOWN = "unknown"


def is_imported(connection: Connection, model: str) -> bool:
    """Whether the versions of a model (a name, or NAME@ID) that are there were all imported."""
    name, _, prefix = model.partition("@")
    found = rows(
        connection,
        "select source from models where model = ? and starts_with(model_id, ?)",
        [name, prefix],
    )
    return bool(found) and all(row["source"].partition(":")[0] == IMPORTED for row in found)
