"""A statement is a query only if every node of its syntax tree is on a list: `require_query`.

DuckDB takes statements that write in the places of queries (`with d as (copy ...) from d`), and
another version may take them elsewhere. What is not listed here is refused, at any depth.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from typing import Any

import duckdb

from axes.warehouse.errors import MAX_MESSAGE, QueryError, RootError

# An object of the syntax tree that DuckDB's `json_serialize_sql` gives.
Node = Mapping[str, Any]

# `type` of the objects that have no `class`: queries, what stands behind `from`, modifiers of a
# query, orders.
_TYPES = re.compile(
    r"SELECT_NODE|SET_OPERATION_NODE|RECURSIVE_CTE_NODE|BASE_TABLE|SUBQUERY|JOIN"
    r"|TABLE_FUNCTION|EXPRESSION_LIST|EMPTY|PIVOT|SHOW_REF|ORDER_MODIFIER|LIMIT_MODIFIER"
    r"|DISTINCT_MODIFIER|ORDER_DEFAULT|ASCENDING|DESCENDING"
)
# `class` of an expression.
_CLASSES = re.compile(
    r"BETWEEN|CASE|CAST|COLLATE|COLUMN_REF|COMPARISON|CONJUNCTION|CONSTANT|FUNCTION|LAMBDA"
    r"|OPERATOR|PARAMETER|POSITIONAL_REFERENCE|STAR|SUBQUERY|TYPE|WINDOW"
)
_REFUSAL = "select statements run here and nothing else"
# These run a statement that they are given as text.
_RUN_TEXT = frozenset({"query", "json_execute_serialized_sql"})


@lru_cache(maxsize=512)
def require_query(sql: str) -> None:
    """Raise `QueryError` unless each statement of `sql` is a query, in all parts of its tree."""
    for node in nodes(syntax_tree(sql)):
        if node.get("type") == "TABLE_FUNCTION":
            name = node["function"].get("function_name", "?")
            if name.lower() in _RUN_TEXT:
                raise QueryError(f"{name} runs another statement, which no query may")


def syntax_tree(sql: str) -> list[Node]:
    """The statements of `sql` as DuckDB parses them, all of whose nodes are those of queries."""
    try:
        parsed = parser().cursor().execute("select json_serialize_sql($1)", [sql]).fetchall()
        tree = json.loads(parsed[0][0])
    except (duckdb.Error, RecursionError) as error:
        raise QueryError(duckdb_message(error)) from error
    if tree.get("error"):
        reason = duckdb_message(tree.get("error_message", ""))
        raise QueryError(f"{_REFUSAL}: {reason}")
    for node in nodes(tree["statements"]):
        kind, known = node.get("class"), _CLASSES
        if kind is None:
            kind, known = node.get("type", node.get("info_type")), _TYPES
        # The type of a cast is an object, which has none.
        if isinstance(kind, str) and not known.fullmatch(kind):
            what = kind.removesuffix("_QUERY_NODE").lower()
            raise QueryError(f"{what} is no part of a query: {_REFUSAL}")
    return tree["statements"]


def nodes(tree: Any) -> Iterator[Node]:
    """Every object of a syntax tree; a stack, since the tree may nest deeper than Python calls."""
    stack = [tree]
    while stack:
        node = stack.pop()
        if isinstance(node, dict):
            yield node
            stack += node.values()
        elif isinstance(node, list):
            stack += node


@cache
def parser() -> duckdb.DuckDBPyConnection:
    """A connection to nothing, which takes syntax trees apart; it runs no statement of others."""
    return duckdb.connect()


def duckdb_message(error: object) -> str:
    """DuckDB's message without the excerpt of the statement below it, and of bounded length."""
    text = raised_message(error)[: 2 * MAX_MESSAGE].partition("\n\nLINE ")[0]
    return " ".join(text.split())[:MAX_MESSAGE]


def raised_message(error: object) -> str:
    """DuckDB's message; that of a `RootError` which a store raised below it, without traceback."""
    return str(error).rpartition(f"{RootError.__module__}.{RootError.__name__}: ")[2]
