"""Descriptions of every view, column and macro, as `comment on` statements.

They are in the header of a mart's file: first a paragraph on the view, then, below an empty comment
line, one entry a column. A column without an entry is passed through and has the description of the
first table or mart in the file that has it, else of the columns that tables share; `x_lower` and
`x_upper` are the interval of `x`.

    -- One row per axis, model and prompt in a prompt set.
    --
    -- axis_name: its name (axes.name)
    -- projection: activation . axis,
    --   after the alignment if any
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from axes.warehouse.names import sql_literal
from axes.warehouse.tables.columns import SHARED
from axes.warehouse.tables.schemas import TABLES

_ENTRY = re.compile(r"(\w+): (.+)")
_SHARED = {name: field.metadata[b"comment"].decode() for name, field in SHARED.items()}
_INTERVAL_END = re.compile(r"(?:(\w+)_)?(lower|upper)")


@dataclass(frozen=True)
class Header:
    """Description of a SQL file's object: a text, and a line for some of its columns."""

    text: str
    columns: dict[str, str]


def read_header(sql: str) -> Header:
    """The comment that a file opens with.

    >>> read_header("-- One row per a.\\n--\\n-- b: what\\n--   it is\\ncreate view ...")
    Header(text='One row per a.', columns={'b': 'what it is'})
    """
    lines = []
    for line in sql.splitlines():
        if not line.startswith("--"):
            break
        lines.append(line.removeprefix("--").removeprefix(" "))
    end = lines.index("") if "" in lines else len(lines)
    columns: dict[str, str] = {}
    name = ""
    for line in lines[end + 1 :]:
        if entry := _ENTRY.fullmatch(line):
            name = entry[1]
            columns[name] = entry[2]
        else:
            columns[name] += f" {line.strip()}"
    return Header("\n".join(lines[:end]), columns)


def without_comments(sql: str) -> str:
    """The code of a SQL file."""
    return re.sub(r"--.*", "", sql)


def column_comments(
    marts: Mapping[str, str], columns: Mapping[str, Iterable[str]]
) -> dict[str, dict[str, str]]:
    """View -> column -> comment, for the tables, the staging views and the marts.

    `marts` is name -> file, each after those it reads; `columns` is name -> its columns.
    """
    described: dict[str, dict[str, str]] = {}
    for name, table in TABLES.items():
        of_table = dict(zip(table.schema.names, table.comments, strict=True))
        described |= {name: of_table, f"stg_{name}": of_table}
    for name, sql in marts.items():
        header = read_header(sql)
        words = re.findall(r"\b(?:stg|v)_\w+", without_comments(sql))
        sources = [described[word] for word in words if word in described]
        described[name] = {
            column: comment
            for column in columns[name]
            if (comment := _comment(column, header.columns, *sources, _SHARED))
        }
    return described


def comment_statements(
    marts: Mapping[str, str], macros: Mapping[str, str], columns: Mapping[str, Iterable[str]]
) -> list[str]:
    """`comment on` for every view, column and macro."""
    texts = {name: f"One row per {table.grain}." for name, table in TABLES.items()}
    texts |= {f"stg_{name}": text for name, text in texts.items()}
    texts |= {name: _one_line(read_header(sql).text) for name, sql in marts.items()}
    statements = [f"comment on view {name} is {sql_literal(text)}" for name, text in texts.items()]
    statements += [
        f"comment on macro {name} is {sql_literal(_one_line(read_header(sql).text))}"
        for name, sql in macros.items()
    ]
    return statements + [
        f"comment on column {view}.{column} is {sql_literal(text)}"
        for view, commented in column_comments(marts, columns).items()
        for column, text in commented.items()
    ]


def _comment(column: str, *sources: Mapping[str, str]) -> str | None:
    """What the first source that has a column says of it, or what its name does."""
    if comment := next((source[column] for source in sources if column in source), None):
        return comment
    if end := _INTERVAL_END.fullmatch(column):
        return f"{end[2]} end of the 95 % interval" + (f" of {end[1]}" if end[1] else "")
    return None


def _one_line(text: str) -> str:
    return " ".join(text.split())
