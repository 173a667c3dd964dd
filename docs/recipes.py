"""The questions of docs/cookbook: SQL files, what they print on the demo's warehouse, the page."""

from __future__ import annotations

from pathlib import Path

from axes.warehouse.connection import Connection, connect, query
from axes.warehouse.render import render
from axes.warehouse.tables.comments import read_header

COOKBOOK = Path(__file__).parent / "cookbook"

_INTRODUCTION = """\
# Cookbook

{count} questions, each with its SQL and the output on the warehouse of `make demo`: three small
models, 300 + 300 prompts in matched pairs, 1,500 prompts for the alignment. The files are in
`docs/cookbook`: `axes sql -f docs/cookbook/01_coverage.sql`.

Outputs are recorded. `make docs RECORD=lake` runs the queries on a demo warehouse and records their
outputs again. A test compares them, except for differences between machines: last digits, and with
them the order of near ties.
"""


def cookbook_page() -> str:
    """Every question with its SQL and its recorded output."""
    queries = recipes()
    parts = [_INTRODUCTION.format(count=len(queries))]
    parts.append("".join(f"- [{_question(sql)}](#{name})\n" for name, sql in queries.items()))
    for name, sql in queries.items():
        remarks = read_header(sql).text.partition("\n")[2]
        parts.append(f'<a id="{name}"></a>\n\n## {_question(sql)}\n')
        parts += [f"{remarks}\n"] if remarks else []
        parts.append(f"```sql\n{_code(sql)}\n```\n\n```text\n{recorded(name)}```\n")
    return "\n".join(parts)


def recipes() -> dict[str, str]:
    """Name -> SQL, in order."""
    return {path.stem: path.read_text() for path in sorted(COOKBOOK.glob("*.sql"))}


def recorded(name: str) -> str:
    """What a question printed when it was last asked of the demo's warehouse."""
    return (COOKBOOK / f"{name}.txt").read_text()


def answer(connection: Connection, name: str) -> str:
    """What a question prints on a warehouse."""
    return render(query(connection, recipes()[name]), "table").decode()


def record(root: Path) -> None:
    """Ask a demo warehouse every question and write the answers down."""
    connection = connect(root)
    for name in recipes():
        (COOKBOOK / f"{name}.txt").write_text(answer(connection, name))


def _question(sql: str) -> str:
    return read_header(sql).text.partition("\n")[0]


def _code(sql: str) -> str:
    return "\n".join(line for line in sql.splitlines() if not line.startswith("--"))
