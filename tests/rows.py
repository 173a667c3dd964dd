"""Rows for tests: name the columns that matter, the schema's own types fill the rest; read back."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from axes.warehouse.handle import Warehouse
from axes.warehouse.tables.columns import SKIPPED, STRINGS, TEXT, TIME, VECTOR
from axes.warehouse.tables.schemas import TABLES
from axes.warehouse.writer import content_key, rows_table, write_rows

Row = dict[str, Any]

_FILLERS: dict[pa.DataType, Any] = {
    TEXT: "x",
    TIME: datetime(2025, 1, 1, tzinfo=UTC),
    VECTOR: [1.0, 0.0],
    STRINGS: [],
    SKIPPED: [],
    pa.bool_(): False,
    pa.int16(): 0,
    pa.int32(): 0,
    pa.int64(): 0,
    pa.float32(): 0.0,
    pa.float64(): 0.0,
}


def full(table: str, row: Row) -> Row:
    """The row with every column: null where that is allowed, a filler of its type elsewhere."""
    schema = TABLES[table].schema
    if unknown := row.keys() - set(schema.names):
        raise KeyError(f"{table} has no column {', '.join(sorted(unknown))}")
    filled = {field.name: None if field.nullable else _FILLERS[field.type] for field in schema}
    return {**filled, **row}


def put(root: Path, table: str, *rows: Row) -> None:
    """Write rows to their partitions, one new file for each, named by content."""
    partition = TABLES[table].partition
    groups: dict[str | None, list[Row]] = defaultdict(list)
    for row in rows:
        described = full(table, row)
        groups[described[partition] if partition else None].append(described)
    for value, members in groups.items():
        name = content_key([str(sorted(row.items())) for row in members])
        write_rows(root, table, rows_table(table, members), name=name, partition=value)


def put_prompts(
    root: Path, prompt_set: str, labels: dict[str, bool | None], **columns: Any
) -> None:
    """A prompt set: prompt id -> is positive by the labeler `dataset`, None without a label."""
    common = {"prompt_set": prompt_set, "run_id": "run"}
    prompts = [
        {**common, "prompt_id": prompt_id, "position": position, "text": f"text {prompt_id}"}
        for position, prompt_id in enumerate(labels)
    ]
    put(root, "prompts", *({**prompt, **columns} for prompt in prompts))
    labelled = [
        {**common, "labeler": "dataset", "prompt_id": prompt_id, "is_positive": is_positive}
        for prompt_id, is_positive in labels.items()
        if is_positive is not None
    ]
    put(
        root,
        "labels",
        *({**label, "label": "unsafe" if label["is_positive"] else "safe"} for label in labelled),
    )


def file_bytes(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its path in it."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


@lru_cache(maxsize=4)
def opened(root: Path) -> Warehouse:
    """A warehouse, opened once: what is written later is read too."""
    return Warehouse.open(root)


def ask(root: Path, statement: str, parameters: Any = None) -> list[Row]:
    """The rows of one statement."""
    return opened(root).query(statement, parameters).to_pylist()
