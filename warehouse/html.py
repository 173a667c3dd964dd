"""Rows as an HTML table for notebooks: semantic, without style or script, every value escaped.

An estimate and its interval (columns `x`, `x_lower`, `x_upper`, or `estimate`, `lower`, `upper`)
are one cell, as they are to be read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

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
