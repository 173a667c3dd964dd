"""Queried rows as text: a table for people, CSV, JSON, Parquet and Markdown for the rest."""

from __future__ import annotations

import io
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict
from decimal import Decimal
from pathlib import Path
from typing import Any

import click
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

_CELL_WIDTH = 60


def show(
    table: pa.Table,
    output_format: str,
    output: Path | None = None,
    *,
    cell_width: int = _CELL_WIDTH,
) -> None:
    """Print a result to stdout, or write it to the file `output`."""
    data = render(table, output_format, cell_width=cell_width)
    if output is not None:
        output.write_bytes(data)
    elif output_format == "parquet" and sys.stdout.isatty():
        raise click.UsageError("parquet is not for a terminal: give --output FILE or a pipe")
    else:
        click.echo(data, nl=False)


def show_rows(
    rows: Sequence[dict[str, Any]], output_format: str, *, cell_width: int = _CELL_WIDTH
) -> None:
    """Print row dicts."""
    show(pa.Table.from_pylist(list(rows)), output_format, cell_width=cell_width)


def show_record(record: Any, output_format: str) -> None:
    """Print a dataclass as one row; as a table, one line per field."""
    fields = asdict(record)
    if output_format == "table":
        show_rows([{"field": key, "value": str(value)} for key, value in fields.items()], "table")
    else:
        show_rows([fields], output_format)


def render(table: pa.Table, output_format: str, *, cell_width: int = _CELL_WIDTH) -> bytes:
    """A result in one of `FORMATS`, as bytes; text for people is cut at `cell_width`."""
    if output_format == "parquet":
        buffer = io.BytesIO()
        pq.write_table(table, buffer)
        return buffer.getvalue()
    if output_format == "json":
        rows = json.dumps(_strict(table.to_pylist()), indent=2, default=_plain, ensure_ascii=False)
        return (rows + "\n").encode()
    if output_format == "csv":
        return _flat(table).write_csv().encode()
    header = table.column_names
    cells = [[_cell(value, cell_width) for value in row.values()] for row in table.to_pylist()]
    text = _markdown(header, cells) if output_format == "markdown" else _aligned(header, cells)
    return text.encode()


def _flat(table: pa.Table) -> pl.DataFrame:
    """Lists and structs as JSON text: CSV has no nested values."""
    columns = []
    for name in table.column_names:
        values = table.column(name)
        if pa.types.is_nested(values.type):
            values = pa.array(
                [
                    None if value is None else json.dumps(value, default=_plain)
                    for value in values.to_pylist()
                ],
                pa.string(),
            )
        columns.append(pl.Series(name, values))
    return pl.DataFrame(columns)


def _strict(value: Any) -> Any:
    """NaN and infinity as null: JSON has no such numbers, and parsers refuse them."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _strict(inner) for key, inner in value.items()}
    return [_strict(inner) for inner in value] if isinstance(value, list) else value


def _plain(value: Any) -> Any:
    """What JSON has no type for: a decimal (DuckDB's sum of integers) as a number, else text."""
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    return str(value)


def _cell(value: Any, width: int) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) >= 1e4 or 0 < abs(value) < 1e-3 else f"{value:.4f}"
    if isinstance(value, list) and len(value) > 4 and isinstance(value[0], float):
        return f"[{', '.join(_cell(item, width) for item in value[:3])}, ... {len(value)}]"
    text = " ".join(str(value).split())
    return text if len(text) <= width else text[: width - 1] + "…"


def _aligned(header: list[str], cells: list[list[str]]) -> str:
    lines = [header, *cells]
    widths = [max(len(line[index]) for line in lines) for index in range(len(header))]
    rule = ["─" * width for width in widths]
    text = [
        "  ".join(value.ljust(width) for value, width in zip(line, widths, strict=True)).rstrip()
        for line in [header, rule, *cells]
    ]
    return "\n".join(text) + f"\n({len(cells)} row{'' if len(cells) == 1 else 's'})\n"


def _markdown(header: list[str], cells: list[list[str]]) -> str:
    rows = [header, ["---"] * len(header), *cells]
    return "".join(
        "| " + " | ".join(value.replace("|", "\\|") for value in row) + " |\n" for row in rows
    )
