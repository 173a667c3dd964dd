"""Queried rows as JSON for the page, with texts of the positive class hidden until clicked.

Hidden are prompts that any labeler calls positive, in any set, and their completions. In the
result of typed SQL, a cell is hidden if it is, contains or is part of such a text. Pieces shorter
than `MIN_LENGTH` characters, and texts that a statement transforms, are not recognised.
"""

from __future__ import annotations

import math
import secrets
import threading
from collections import OrderedDict
from collections.abc import Iterable
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa

from axes.warehouse.connection import Connection, query
from axes.warehouse.render import python_values

# An object of JSON, as the page's scripts read it.
Json = dict[str, Any]

MIN_LENGTH = 20
_MAX_TEXTS = 20_000
# Comparisons of a cell with a text: some tenths of a second.
_MAX_COMPARISONS = 1_000_000

POSITIVE_PROMPTS = """
    select distinct prompt_id from labels
    where generation_id is null and prompt_id is not null and is_positive
"""
_POSITIVE_TEXTS = f"""
    with positive as ({POSITIVE_PROMPTS})
    select text from prompts semi join positive using (prompt_id)
    union
    select text from generations semi join positive using (prompt_id)
"""


class Hidden:
    """Texts by random number, which the page shows in their place; the oldest are dropped."""

    def __init__(self) -> None:
        self._texts: OrderedDict[str, str] = OrderedDict()
        # A text keeps its number: a chart that is drawn again drops no other text.
        self._numbers: dict[str, str] = {}
        self._lock = threading.Lock()

    def put(self, text: str) -> dict[str, str]:
        """What the page shows instead of the text."""
        with self._lock:
            number = self._numbers.setdefault(text, secrets.token_hex(8))
            self._texts[number] = text
            self._texts.move_to_end(number)
            if len(self._texts) > _MAX_TEXTS:
                del self._numbers[self._texts.popitem(last=False)[1]]
        return {"hidden": number}

    def get(self, number: str) -> str | None:
        """The text, or None for a number that is unknown or was dropped."""
        with self._lock:
            return self._texts.get(number)


def positive_cells(connection: Connection, cells: Iterable[str]) -> set[str]:
    """Those of `cells` that are, contain or are part of a positive prompt or its completion.

    With too many to compare, every long cell counts as one.
    """
    long_cells = sorted({cell for cell in cells if len(cell) >= MIN_LENGTH})
    if not long_cells:
        return set()
    texts = [
        text
        for text in query(connection, _POSITIVE_TEXTS).column("text").to_pylist()
        if len(text) >= MIN_LENGTH
    ]
    if len(texts) * len(long_cells) > _MAX_COMPARISONS:
        return set(long_cells)
    return {cell for cell in long_cells if any(text in cell or cell in text for text in texts)}


def plain_rows(found: list[Json]) -> list[Json]:
    """The rows with every value as JSON."""
    return [{name: plain(value) for name, value in row.items()} for row in found]


def covered(found: list[Json], hidden: Hidden, texts: list[str]) -> list[Json]:
    """The rows without `is_hidden`; where it is true, numbers stand for their `texts`."""
    for row in found:
        if row.pop("is_hidden"):
            row |= {name: hidden.put(row[name] or "") for name in texts}
    return found


def texts_in(value: Any) -> Iterable[str]:
    """The texts in a cell, which may be a list or a struct."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from texts_in([*value, *value.values()])
    elif isinstance(value, list | tuple):
        for item in value:
            yield from texts_in(item)


# A vector is shown by its first numbers.
_MAX_LIST = 8
_CUT_LIST = 4
# JavaScript has no larger integers.
_MAX_EXACT = 2**53


def answer(table: pa.Table, connection: Connection, hidden: Hidden, *, row_limit: int) -> Json:
    """The first rows with names and kinds of the columns, positive texts hidden."""
    columns = [{"name": field.name, "kind": kind_of(field.type)} for field in table.schema]
    cells = [python_values(column) for column in table.slice(0, row_limit)]
    rows = list(zip(*cells, strict=True))
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
    """A value as JSON: lists and structs as text, long lists cut, NaN in words."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return value if abs(value) <= _MAX_EXACT else str(value)
    if isinstance(value, Decimal):
        return plain(int(value) if value == value.to_integral_value() else float(value))
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {plain(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        is_cut = len(value) > _MAX_LIST
        text = ", ".join(f"{plain(item)}" for item in (value[:_CUT_LIST] if is_cut else value))
        return f"[{text}, … {len(value):,} in all]" if is_cut else f"[{text}]"
    return str(value)
