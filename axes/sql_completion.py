"""Completion of SQL statements: tables, columns, macros, functions, keywords."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document

from axes.warehouse.connection import Connection

_WORD = re.compile(r"[\w.]*$")
_TABLE_NEXT = re.compile(r"\b(?:from|join|describe|summarize|table|into|update)\s+$", re.I)


@dataclass
class Catalog:
    """The names of a connection; `columns` is view -> column -> its type and comment."""

    columns: dict[str, dict[str, str]] = field(default_factory=dict)
    macros: list[str] = field(default_factory=list)
    functions: list[str] = field(default_factory=list)
    keywords: list[str] = field(default_factory=list)

    def read(self, connection: Connection) -> None:
        """Read the names of the connection; repeat after a statement that creates some."""
        self.columns.clear()
        for table, column, kind, comment in connection.execute(
            "select table_name, column_name, data_type, comment from duckdb_columns() "
            "where not internal order by table_name, column_index"
        ).fetchall():
            meaning = f"{kind.lower()}  {comment or ''}"
            self.columns.setdefault(table, {})[column] = meaning
        named = "select distinct function_name from duckdb_functions() where {} order by all"
        macros = "function_type like '%macro' and not internal"
        functions = "function_name ~ '^[a-z]\\w+$' and internal"
        self.macros = _first_column(connection, named.format(macros))
        self.functions = _first_column(connection, named.format(functions))
        self.keywords = _first_column(connection, "select keyword_name from duckdb_keywords()")


class SqlCompleter(Completer):
    """Completes dot commands (`commands`: name -> its arguments) and SQL."""

    def __init__(self, catalog: Catalog, commands: dict[str, list[str]]) -> None:
        self.catalog = catalog
        self.commands = commands

    def get_completions(
        self, document: Document, complete_event: CompleteEvent
    ) -> Iterator[Completion]:
        before = document.text_before_cursor
        if before.startswith("."):
            yield from self._dot_command(before)
            return
        match = _WORD.search(before)
        word = match[0] if match else ""
        owner, dot, start = word.rpartition(".")
        if dot:
            yield from _matching(self._columns_of(owner, document.text), start)
        elif _TABLE_NEXT.search(before.removesuffix(word)):
            yield from _matching(dict.fromkeys(self._tables(), "table or view"), word)
        elif word:
            yield from _matching(self._all_names(document.text), word)

    def _dot_command(self, before: str) -> Iterator[Completion]:
        command, space, argument = before.partition(" ")
        if not space:
            yield from _matching(dict.fromkeys(self.commands, ""), command)
        else:
            choices = self._tables() if command == ".schema" else self.commands.get(command, [])
            yield from _matching(dict.fromkeys(choices, ""), argument)

    def _tables(self) -> list[str]:
        """Staging views last: the tables are the same rows under a shorter name."""
        return sorted(self.catalog.columns, key=lambda name: (name.startswith("stg_"), name))

    def _columns_of(self, owner: str, text: str) -> dict[str, str]:
        """The columns of the table with this name, or with this alias in the text."""
        if owner in self.catalog.columns:
            return self.catalog.columns[owner]
        named = re.findall(rf"\b(\w+)\s+(?:as\s+)?{re.escape(owner)}\b", text, re.I)
        return next((self.catalog.columns[n] for n in named if n in self.catalog.columns), {})

    def _all_names(self, text: str) -> dict[str, str]:
        """Columns of the tables that the text names (of all if it names none), then the rest."""
        named = self.catalog.columns.keys() & set(re.findall(r"\w+", text))
        found: dict[str, str] = {}
        for table in sorted(named) or self._tables():
            found = {**self.catalog.columns[table], **found}
        found |= dict.fromkeys(self._tables(), "table or view")
        found |= {f"{name}(": "macro" for name in self.catalog.macros}
        for word in self.catalog.keywords:
            found.setdefault(word, "keyword")
        for name in self.catalog.functions:
            found.setdefault(f"{name}(", "function")
        return found


def _matching(choices: dict[str, str], start: str) -> Iterator[Completion]:
    for choice, meaning in choices.items():
        if choice.lower().startswith(start.lower()):
            yield Completion(choice, start_position=-len(start), display_meta=meaning)


def _first_column(connection: Connection, sql: str) -> list[str]:
    rows: Iterable[tuple[str, ...]] = connection.execute(sql).fetchall()
    return [row[0] for row in rows]
