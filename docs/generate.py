"""Write docs/tables.md, cli.md, modules.md and cookbook.md from schemas, SQL files and code.

Run by `make docs`; a test fails when the committed files differ from what this writes. The outputs
in the cookbook are recorded: `python -m docs.generate --record ROOT` asks the demo's warehouse.
"""

from __future__ import annotations

import ast
import re
import tempfile
import tomllib
from pathlib import Path

import click
from setuptools import find_packages

from axes.cli.main import cli
from axes.warehouse.connection import check_rules, connect, rows, sql_files
from axes.warehouse.layout import init_root
from axes.warehouse.tables.comments import read_header
from axes.warehouse.tables.schemas import TABLES
from docs.recipes import cookbook_page, record

FOLDER = Path(__file__).parent
NOTE = "<!-- Written by docs/generate.py (make docs); edit the source, not this file. -->\n"


def tables_page() -> str:
    """Every table and view with its columns, then every macro and check with its header."""
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
    parts.append("# Views\n")
    parts += [_view_section(name, columns) for name, columns in _mart_columns().items()]
    for title, statements in (("Macros", sql_files("macros")), ("Checks", check_rules())):
        parts.append(f"# {title}\n")
        parts += [f"## {name}\n\n{read_header(sql).text}\n" for name, sql in statements.items()]
    return "\n".join(parts)


def cli_page() -> str:
    """The help of every command."""
    parts = [NOTE, "# Commands\n"]
    for path, command in commands():
        context = click.Context(command, info_name=path, terminal_width=88, **cli.context_settings)
        parts.append(f"## {path}\n\n```\n{command.get_help(context)}\n```\n")
    return "\n".join(parts)


def modules_page() -> str:
    """Every module with the first paragraph of its docstring, package by package."""
    parts = [NOTE, "# Modules\n"]
    parts.append(
        "The files of the package, each in its own words. Imports run one way: `axes.py`, "
        "commands, `interface`, `ingest` or `analysis`, `warehouse`; the libraries `ingest` and "
        "`analysis` never import each other.\n"
    )
    project = tomllib.loads((FOLDER.parent / "pyproject.toml").read_text())
    found = project["tool"]["setuptools"]["packages"]["find"]
    for package in find_packages(str(FOLDER.parent), found["exclude"], found["include"]):
        folder = FOLDER.parent / package.replace(".", "/")
        first, *modules = [
            (path.name, _first_paragraph(path)) for path in sorted(folder.glob("*.py"))
        ]
        if modules:
            lines = [f"## {package}\n", f"{first[1]}\n", "| module | what |", "| --- | --- |"]
            lines += [f"| `{name}` | {words} |" for name, words in modules]
            parts.append("\n".join(lines) + "\n")
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


def _first_paragraph(path: Path) -> str:
    """Of a module's docstring; `__init__.py` is the first of a package by name."""
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    return text.partition("\n\n")[0].replace("\n", " ").replace("|", "\\|")


def _short(kind: str) -> str:
    kind = kind.replace("list<element: float not null>", "list of float")
    kind = kind.replace("list<element: string not null>", "list of string")
    members = re.search(r"list<element: struct<(.*)> not null>", kind)
    if members is None:
        return kind
    names = ", ".join(re.findall(r"(\w+): ", members[1]))
    return kind.replace(members[0], f"list of ({names})")


def _mart_columns() -> dict[str, list[dict[str, str]]]:
    """View -> its columns with type and comment, from an empty warehouse."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "lake"
        init_root(root)
        listed = rows(
            connect(root, is_commented=True),
            "select table_name, column_name, data_type, comment from duckdb_columns() "
            "where table_name like 'v\\_%' escape '\\' order by table_name, column_index",
        )
    columns: dict[str, list[dict[str, str]]] = {}
    for row in listed:
        columns.setdefault(row["table_name"], []).append(row)
    return columns


def _view_section(name: str, columns: list[dict[str, str]]) -> str:
    lines = ["| column | type | what |", "| --- | --- | --- |"]
    for row in columns:
        comment = row["comment"].replace("|", "\\|")
        lines.append(f"| {row['column_name']} | {row['data_type'].lower()} | {comment} |")
    text = read_header(sql_files("marts")[name]).text
    return f"## {name}\n\n{text}\n\n" + "\n".join(lines) + "\n"


@click.command()
@click.option(
    "--record",
    "root",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Ask this demo warehouse the cookbook's questions first, and write the answers down.",
)
def main(root: Path | None) -> None:
    """Write the pages."""
    if root is not None:
        record(root)
    (FOLDER / "tables.md").write_text(tables_page())
    (FOLDER / "cli.md").write_text(cli_page())
    (FOLDER / "modules.md").write_text(modules_page())
    (FOLDER / "cookbook.md").write_text(NOTE + cookbook_page())


if __name__ == "__main__":
    main()
