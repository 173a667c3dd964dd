"""Which texts a page may not hold until somebody clicks, and where they are kept until then.

Hidden are prompts that any labeler calls positive, in any set, and the completions of them. In an
answer to typed SQL a cell is hidden that is, holds or is part of such a text; pieces shorter than
`SHORTEST` characters, and texts that a statement turns into something else, are not known for what
they are.
"""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

from axes.warehouse.connection import Connection, query

SHORTEST = 20
_MOST_KEPT = 20_000
# Comparisons of a cell with a text; some tenths of a second.
_MOST_COMPARED = 1_000_000

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
    """Texts behind numbers that tell nothing; the oldest are forgotten."""

    def __init__(self) -> None:
        self._texts: OrderedDict[str, str] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, text: str) -> dict[str, str]:
        """What stands in a page for the text."""
        number = secrets.token_hex(8)
        with self._lock:
            self._texts[number] = text
            if len(self._texts) > _MOST_KEPT:
                self._texts.popitem(last=False)
        return {"hidden": number}

    def get(self, number: str) -> str | None:
        """The text, or None for a number that was never given or is forgotten."""
        with self._lock:
            return self._texts.get(number)


def positive_cells(connection: Connection, cells: Iterable[str]) -> set[str]:
    """Those of `cells` that are, hold or are part of a positive prompt or its completion.

    With too much to compare every long cell is taken for one.
    """
    long_cells = sorted({cell for cell in cells if len(cell) >= SHORTEST})
    if not long_cells:
        return set()
    texts = [
        text
        for text in query(connection, _POSITIVE_TEXTS).column("text").to_pylist()
        if len(text) >= SHORTEST
    ]
    if len(texts) * len(long_cells) > _MOST_COMPARED:
        return set(long_cells)
    return {cell for cell in long_cells if any(text in cell or cell in text for text in texts)}


def texts_in(value: Any) -> Iterable[str]:
    """The texts in a cell, which may be a list or a struct."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from texts_in(key)
            yield from texts_in(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from texts_in(inner)
