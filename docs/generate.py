"""Write docs/tables.md and docs/cli.md from the schemas, the SQL files and the commands.

Run by `make docs`; a test fails when the committed files differ from what this writes.
"""

from __future__ import annotations

import re
from pathlib import Path

import click

from axes import cli
from warehouse.connection import sql_files
from warehouse.schemas import TABLES

FOLDER = Path(__file__).parent
NOTE = "<!-- Written by docs/generate.py (make docs); edit the source, not this file. -->\n"


def tables_page() -> str:
    """Every table with its columns, then every view and macro with its header."""
    parts = [NOTE, "# Tables, views and macros\n"]
    parts.append(
        "Tables are Parquet data sets below the root; SQL reads them under the same names. "
        "Views and macros are the files of `sql/marts` and `sql/macros`.\n"
    )
    for table in TABLES.values():
        parts.append(
            f"## {table.name}\n\nOne row per {table.grain}. Key: {', '.join(table.key)}.\n"
        )
        lines = ["| column | type | what |", "| --- | --- | --- |"]
        for field, comment in zip(table.schema, table.comments, strict=True):
            kind = f"{field.type}" + (" or null" if field.nullable else "")
            lines.append(f"| {field.name} | {_short(kind)} | {comment} |")
        parts.append("\n".join(lines) + "\n")
    for kind, title in (("marts", "Views"), ("macros", "Macros"), ("checks", "Checks")):
        parts.append(f"# {title}\n")
        parts += [f"## {name}\n\n{_header(text)}\n" for name, text in sql_files(kind).items()]
    return "\n".join(parts)


def cli_page() -> str:
    """The help of every command."""
    parts = [NOTE, "# Commands\n"]
    for path, command in commands():
        context = click.Context(command, info_name=path, terminal_width=88, **cli.context_settings)
        parts.append(f"## {path}\n\n```\n{command.get_help(context)}\n```\n")
    return "\n".join(parts)


def commands() -> list[tuple[str, click.Command]]:
    """Every command with its full name, the groups included."""
    found: list[tuple[str, click.Command]] = []

    def walk(path: str, command: click.Command) -> None:
        found.append((path, command))
        if isinstance(command, click.Group):
            context = click.Context(command)
            for name in command.list_commands(context):
                inner = command.get_command(context, name)
                if inner is not None:
                    walk(f"{path} {name}", inner)

    walk("axes", cli)
    return found


def _short(kind: str) -> str:
    kind = kind.replace("list<element: float not null>", "list of float")
    kind = kind.replace("list<element: string not null>", "list of string")
    return re.sub(r"list<element: struct<.*> not null>", "list of (prompt_id, reason)", kind)


def _header(text: str) -> str:
    lines = [line for line in text.splitlines() if line.startswith("--")]
    return "\n".join(line.removeprefix("--").strip() for line in lines)


def main() -> None:
    """Write both pages."""
    (FOLDER / "tables.md").write_text(tables_page())
    (FOLDER / "cli.md").write_text(cli_page())


if __name__ == "__main__":
    main()
