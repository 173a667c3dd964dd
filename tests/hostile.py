"""A warehouse as a stranger might hand it over: every text in it is an attack.

A small study is made, and every row is written again with its texts changed in the same way
everywhere, so that ids and names still fit together and the commands get as far as they can.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa

from axes.warehouse.connection import connect, query
from axes.warehouse.storage.layout import init_root
from axes.warehouse.tables.schemas import TABLES
from axes.warehouse.writer import content_key, write_rows

# SQL, a path, markup, a spreadsheet's formula, a window title (OSC), a C1 control, a line's end.
ATTACK = "=1'\"; drop view runs--/../../..<b>\x1b]0;x\x07\x9b2J\r\n|`id`{x}%s"
# In the vocabulary of the code: another word would only end every command at once.
_WORDS = {"kind", "method", "scorer", "metric", "site", "pooling", "template", "setting", "control"}
_WORDS |= {"target", "figure", "check_name", "status", "finish_reason", "steering_mode", "device"}
_IDS = ("_id", "_ids", "_hash")


def put_hostile(source: Path, root: Path, *, with_ids: bool) -> None:
    """The rows of `source` with `ATTACK` before every text; ids only on demand."""
    connection = connect(source)
    init_root(root)
    names = _names(connection)
    for name, table in TABLES.items():
        stored = query(connection, f"from {name}")
        rows = stored.to_pylist()
        for row in rows:
            for column, value in row.items():
                is_kept = column in _WORDS or (column.endswith(_IDS) and not with_ids)
                if not is_kept:
                    row[column] = _attacking(value, names)
        groups: dict[tuple[str | None, str | None], list[dict]] = {}
        for row in rows:
            part = row[table.partition] if table.partition else None
            # Alignments are looked up by the name of their file.
            file = row.get("alignment_id") if name == "alignments" and not with_ids else None
            groups.setdefault((part, file), []).append(row)
        for (part, file), members in groups.items():
            written = pa.Table.from_pylist(members, schema=table.schema).select(
                table.file_schema.names
            )
            key = file or content_key(name, part)
            write_rows(root, name, written.cast(table.file_schema), name=key, partition=part)


def hostile(text: str) -> str:
    """A text of the study as the hostile warehouse has it."""
    return ATTACK + text


def _names(connection: Any) -> set[str]:
    """What texts inside JSON are changed: those that stand in a column too."""
    found: set[str] = set()
    for sql in (
        "select distinct model from models",
        "select distinct prompt_set from prompts",
        "select distinct name from axes",
    ):
        found |= set(query(connection, sql).column(0).to_pylist())
    return found


def _attacking(value: Any, names: set[str]) -> Any:
    if isinstance(value, list):
        return [_attacking(item, names) for item in value]
    if isinstance(value, dict):
        return {key: _attacking(item, names) for key, item in value.items()}
    if not isinstance(value, str):
        return value
    if value.startswith("{"):
        return json.dumps(_in_json(json.loads(value), names))
    return hostile(value)


def _in_json(value: Any, names: set[str]) -> Any:
    if isinstance(value, dict):
        return {hostile(k) if k in names else k: _in_json(v, names) for k, v in value.items()}
    if isinstance(value, list):
        return [_in_json(item, names) for item in value]
    return hostile(value) if isinstance(value, str) and value in names | {"greek"} else value
