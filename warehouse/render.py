"""Queried rows as text: a table for people, CSV, JSON, Parquet and Markdown for the rest.

Rows as an HTML table for notebooks: semantic, without style or script, every value escaped.

An estimate and its interval (columns `x`, `x_lower`, `x_upper`, or `estimate`, `lower`, `upper`)
are one cell, as they are to be read.
"""

from __future__ import annotations

import io
import json
import math
import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field, is_dataclass
from decimal import Decimal
from functools import partial
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from axes.warehouse.errors import MAX_MESSAGE, QueryError
from axes.warehouse.storage.files import replacing

if TYPE_CHECKING:
    # Imported where rows are printed: every command imports this module for `--help`.
    import polars as pl
    import pyarrow as pa

_CELL_WIDTH = 60

# Controls that a terminal obeys (C0, DEL, C1), that reorder a line, or that XML does not allow.
_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
# What a spreadsheet would run: a text that starts as a formula and is no number.
_FORMULA = re.compile(r"(?![-+]?[\d.]+$)[=+\-@\t\r]")


def visible(text: str) -> str:
    r"""A text as a terminal may have it: control characters are spelled out.

    >>> print(visible("a" + chr(27) + "[2J"))
    a\x1b[2J
    """
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


def one_line(error: object) -> str:
    """A message as one visible line of bounded length; names in it may be of a stranger."""
    text = visible(" ".join(str(error)[: 2 * MAX_MESSAGE].splitlines()))
    return text if len(text) <= MAX_MESSAGE else text[: MAX_MESSAGE - 1] + "…"


@dataclass
class Printed:
    """What a command would print: its tables, lines and messages, and the id and SQL behind them.

    `sql` is that of the first table, `ids` those of the stored results, `record` the object of a
    command that prints one.
    """

    tables: list[pa.Table] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    sql: str | None = None
    record: Any = None


_printed: ContextVar[Printed | None] = ContextVar("_printed", default=None)


@contextmanager
def captured() -> Iterator[Printed]:
    """Inside, `echo` and `show` print nothing and fill what is yielded, for Python functions."""
    printed = Printed()
    token = _printed.set(printed)
    try:
        yield printed
    finally:
        _printed.reset(token)


def echo(text: object = "", *, err: bool = False) -> None:
    """Print a line. Every text that is no table goes through here, `show` prints the tables."""
    if (printed := _printed.get()) is None:
        click.echo(visible(str(text)), err=err)
    elif line := visible(str(text)).strip():
        (printed.messages if err else printed.lines).append(line)


def echo_id(kind: str, result_id: str, *, err: bool = True) -> None:
    """Print the id of a stored result, such as `evaluation 31011258`."""
    if (printed := _printed.get()) is None:
        echo(f"{kind} {result_id}", err=err)
    else:
        printed.ids.append(result_id)


def show(
    table: pa.Table,
    output_format: str,
    output: Path | None = None,
    *,
    cell_width: int = _CELL_WIDTH,
    sql: str | None = None,
) -> None:
    """Print a result to stdout, or write it to the file `output`; `sql` is what returns its rows.

    On a terminal a table fits its width, with cells cut at `cell_width`; elsewhere nothing is cut.
    """
    if output is None and (printed := _printed.get()) is not None:
        printed.sql = printed.sql if printed.tables else sql
        printed.tables.append(table)
        return
    is_terminal = output is None and sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if is_terminal else None
    data = render(table, output_format, cell_width=cell_width if width else None, width=width)
    if output is not None:
        with replacing(output) as temporary:
            temporary.write_bytes(data)
    elif output_format == "parquet" and sys.stdout.isatty():
        raise click.UsageError("parquet is binary: redirect it to a file or a pipe")
    elif output_format in ("csv", "tsv") and sys.stdout.isatty():
        click.echo(visible(data.decode()), nl=False)
    else:
        click.echo(data, nl=False)


def show_rows(records: Iterable[Any], output_format: str, *, cell_width: int = _CELL_WIDTH) -> None:
    """Print one row for each record: a dict, a NamedTuple or a dataclass."""
    import pyarrow as pa

    rows = [_fields(record) for record in records]
    show(pa.Table.from_pylist(rows), output_format, cell_width=cell_width)


def show_record(record: Any, output_format: str) -> None:
    """Print a dataclass as one row; as a table, one line per field."""
    if (printed := _printed.get()) is not None:
        printed.record = record
    fields = _fields(record)
    if output_format == "table":
        show_rows([{"field": key, "value": _cell(each)} for key, each in fields.items()], "table")
    else:
        show_rows([fields], output_format)


def _fields(record: Any) -> dict[str, Any]:
    if isinstance(record, dict):
        return record
    return asdict(record) if is_dataclass(record) else record._asdict()  # type: ignore[arg-type]


def render(
    table: pa.Table,
    output_format: str,
    *,
    cell_width: int | None = _CELL_WIDTH,
    width: int | None = None,
) -> bytes:
    """A result in one of `FORMATS`, as bytes; text for people is cut at `cell_width`.

    With a `width`, a table leaves out empty columns, and is a block of lines for each row, nothing
    cut, where its lines would be longer.
    """
    table = _storable(table)
    if output_format == "parquet":
        import pyarrow.parquet as pq

        buffer = io.BytesIO()
        pq.write_table(table, buffer)
        return buffer.getvalue()
    if output_format in ("json", "jsonl"):
        rows, dump = finite(python_values(table)), partial(json.dumps, default=_plain)
        documents = (
            [dump(rows, indent=2, ensure_ascii=False)]
            if output_format == "json"
            else [dump(row, ensure_ascii=False) for row in rows]
        )
        return "".join(f"{_escaped(document)}\n" for document in documents).encode()
    if output_format in ("csv", "tsv"):
        return _flat(table).write_csv(separator="," if output_format == "csv" else "\t").encode()
    if output_format == "markdown":
        return _markdown(_header(table), _text_cells(table, cell_width)).encode()
    names = [name for name in table.column_names if table[name].null_count < table.num_rows]
    if width is not None and names:
        table = table.select(names)
    text = _aligned(_header(table), _text_cells(table, cell_width))
    if width is not None and max(map(len, text.splitlines())) > width:
        text = _blocks(_header(table), _text_cells(table, None))
    return text.encode()


def _escaped(text: str) -> str:
    """JSON with control characters as it writes them."""
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _header(table: pa.Table) -> list[str]:
    return [visible(name) for name in table.column_names]


def _text_cells(table: pa.Table, cell_width: int | None) -> list[list[str]]:
    return [[_cell(value, cell_width) for value in row.values()] for row in python_values(table)]


def python_values(column: Any) -> list[Any]:
    """The values of a column, or the rows of a table; raises `QueryError` for times without end."""
    try:
        values: list[Any] = column.to_pylist()
    except (ValueError, OverflowError) as error:
        raise QueryError(
            "a date beyond the years 1 to 9999 is not shown: cast it to text"
        ) from error
    return values


def _storable(table: pa.Table) -> pa.Table:
    """Intervals as DuckDB writes them: neither Parquet nor any text format has a type for them."""
    if not any("interval" in str(field.type) for field in table.schema):
        return table
    import duckdb

    relation = duckdb.from_arrow(table)
    return relation.select(
        *(
            duckdb.ColumnExpression(name).cast(str(kind).replace("INTERVAL", "VARCHAR")).alias(name)
            for name, kind in zip(relation.columns, relation.types, strict=True)
        )
    ).to_arrow_table()


def _flat(table: pa.Table) -> pl.DataFrame:
    """Nested values as JSON text; a quote before a text that a spreadsheet would run."""
    import polars as pl
    import pyarrow as pa

    columns = []
    for name in table.column_names:
        values = table.column(name)
        if pa.types.is_temporal(values.type):
            python_values(values)
        if pa.types.is_nested(values.type) or pa.types.is_binary(values.type):
            values = pa.array(
                [
                    None if value is None else json.dumps(value, default=_plain)
                    for value in values.to_pylist()
                ],
                pa.string(),
            )
        if pa.types.is_string(values.type):
            texts = [f"'{t}" if t and _FORMULA.match(t) else t for t in values.to_pylist()]
            values = pa.array(texts, pa.string())
        columns.append(pl.Series(name, values))
    return pl.DataFrame(columns)


def finite(value: Any) -> Any:
    """A value, list or dict with None for NaN and infinity: JSON has no such numbers."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    return [finite(inner) for inner in value] if isinstance(value, list) else value


def _plain(value: Any) -> Any:
    """What JSON has no type for: a decimal (DuckDB's sum of integers) as a number, else text."""
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    return str(value)


def _cell(value: Any, width: int | None = None) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) >= 1e4 or 0 < abs(value) < 1e-3 else f"{value:.4f}"
    if isinstance(value, list) and len(value) > 4 and isinstance(value[0], float):
        return f"[{', '.join(map(_cell, value[:3]))}, ... {len(value)}]"
    text = visible(" ".join(str(value).split()))
    if isinstance(value, list | dict):
        text = re.sub(r"\d+\.\d{5,}", lambda number: f"{float(number[0]):.4f}", text)
    return text if width is None or len(text) <= width else text[: width - 1] + "…"


def _aligned(header: list[str], cells: list[list[str]]) -> str:
    lines = [header, *cells]
    widths = [max(len(line[index]) for line in lines) for index in range(len(header))]
    rule = ["─" * width for width in widths]
    text = [
        "  ".join(value.ljust(width) for value, width in zip(line, widths, strict=True)).rstrip()
        for line in [header, rule, *cells]
    ]
    return "\n".join(text) + f"\n{_count(cells)}\n"


def _blocks(header: list[str], cells: list[list[str]]) -> str:
    widest = max(map(len, header))
    blocks = (
        "".join(
            f"{name:>{widest}} = {each}\n" for name, each in zip(header, row, strict=True) if each
        )
        for row in cells
    )
    return "\n".join(blocks) + f"{_count(cells)}\n"


def _count(cells: list[list[str]]) -> str:
    return f"({len(cells)} row{'' if len(cells) == 1 else 's'})"


def _markdown(header: list[str], cells: list[list[str]]) -> str:
    rows = [header, ["---"] * len(header), *cells]
    return "".join(
        "| " + " | ".join(markdown_text(value) for value in row) + " |\n" for row in rows
    )


def markdown_text(text: str) -> str:
    """A text as Markdown shows it: no HTML, no link or image, no new cell."""
    for mark, shown in (("&", "&amp;"), ("<", "&lt;"), ("](", "]\\("), ("|", "\\|")):
        text = text.replace(mark, shown)
    return visible(text)


MOST_ROWS = 50


def html_table(rows: Sequence[Mapping[str, Any]], caption: str, notes: Sequence[str] = ()) -> str:
    """The rows (dicts of the same keys) under a caption, at most `MOST_ROWS`; notes below them.

    >>> html_table([{"model": "a<b", "auroc": 0.7, "auroc_lower": 0.6, "auroc_upper": 0.8}], "t")
    ... # doctest: +ELLIPSIS
    '<table><caption>t</caption>...<th scope="row">a&lt;b</th><td>0.700 (0.600 to 0.800)</td>...'
    """
    folded = [_folded(row) for row in rows[:MOST_ROWS]]
    names = list(folded[0]) if folded else []
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
    body = "".join(f"<tr>{_cells(row)}</tr>" for row in folded)
    more = len(rows) - len(folded)
    below = [*notes, *([f"{more:,} more rows"] if more else [])]
    return (
        f"<table><caption>{escape(caption)}</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        + "".join(f"<p>{escape(note)}</p>" for note in below)
    )


def html_record(fields: Mapping[str, Any], caption: str) -> str:
    """One thing, a row for each of its fields."""
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(_text(value))}</td></tr>'
        for name, value in fields.items()
    )
    return f"<table><caption>{escape(caption)}</caption><tbody>{body}</tbody></table>"


def _cells(row: Mapping[str, str]) -> str:
    first, *others = row.values()
    return f'<th scope="row">{escape(first)}</th>' + "".join(
        f"<td>{escape(value)}</td>" for value in others
    )


def _folded(row: Mapping[str, Any]) -> dict[str, str]:
    """The cells of a row as text, the ends of intervals within their estimate's."""
    folded: dict[str, str] = {}
    ends: set[str] = set()
    for name in row:
        start = "" if name == "estimate" else f"{name}_"
        lower, upper = f"{start}lower", f"{start}upper"
        if lower in row and upper in row:
            ends |= {lower, upper}
            folded[name] = _text(row[name])
            if row[lower] is not None and row[upper] is not None:
                folded[name] += f" ({_text(row[lower])} to {_text(row[upper])})"
        else:
            folded[name] = _text(row[name])
    return {name: text for name, text in folded.items() if name not in ends}


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3f}" if value == 0 or 1e-3 <= abs(value) < 1e6 else f"{value:.3g}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)
