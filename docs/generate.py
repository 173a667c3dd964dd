"""The pages made from schemas, SQL files and code: tables.md, cli.md, modules.md, cookbook.md.

The first three are no files: as a hook of mkdocs (mkdocs.yml) this adds them while the site is
built. The cookbook is committed, since its outputs are recorded: `python -m docs.generate --record
ROOT` asks the demo's warehouse and writes the page; a test fails when it differs from its queries.
"""

from __future__ import annotations

import ast
import re
import tempfile
from collections import Counter
from collections.abc import Iterable
from itertools import product, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

import click

from axes.cli.main import cli
from axes.warehouse.connection import connect, rows
from axes.warehouse.storage.layout import init_root
from axes.warehouse.tables.catalog import SQL_FOLDER, check_rules, sql_files
from axes.warehouse.tables.comments import read_header
from axes.warehouse.tables.fitted import FITTED_TABLES
from axes.warehouse.tables.generation import GENERATION_TABLES
from axes.warehouse.tables.ingest import INGEST_TABLES
from axes.warehouse.tables.schemas import TABLES
from docs.imports import Import, folder, part, read_imports, read_modules
from docs.recipes import cookbook_page, record

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

FOLDER = Path(__file__).parent
NOTE = "<!-- Written by docs/generate.py (make docs); edit the source, not this file. -->\n"

# The floors of the package; tests/test_layering.py holds that no import goes another way.
_PARTS = ("axes", "ingest", "analysis", "warehouse")
_FLOORS = """\
┌──────────────────────────────────────────────────────────────────┐
│ {axes:<64} │
└─────────┬───────────────────────┬──────────────────────┬─────────┘
          │ {axes_ingest:<21} │ {axes_warehouse:<20} │ {axes_analysis}
┌─────────▼─────────┐             │            ┌─────────▼─────────┐
{libraries}
└─────────┬─────────┘             │            └─────────┬─────────┘
          │ {ingest_warehouse:<21} │                      │ {analysis_warehouse}
┌─────────▼───────────────────────▼──────────────────────▼─────────┐
│ {warehouse:<64} │
└──────────────────────────────────────────────────────────────────┘
"""


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add the generated pages to the site; mkdocs calls this."""
    from mkdocs.structure.files import File

    pages = {"tables.md": tables_page, "cli.md": cli_page, "modules.md": modules_page}
    for name, page in pages.items():
        files.append(File.generated(config, name, content=page()))


def tables_page() -> str:
    """Every table and view with its columns, then every macro and check with its header."""
    parts = [NOTE, "# Tables, views and macros\n"]
    parts.append(
        "Tables are Parquet data sets below the root; SQL reads them under the same names. "
        "Views and macros are the files of `sql/marts` and `sql/macros`.\n"
    )
    parts.append(_contents())
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
    """The floors, which folder imports which, and every module in its docstring's first words."""
    modules = read_modules()
    imports = read_imports(modules)
    members: dict[str, list[Path]] = {}
    for path in modules.values():
        members.setdefault(path.parent.relative_to(FOLDER.parent).as_posix(), []).append(path)
    pairs = Counter((folder(i.importer, modules), folder(i.imported, modules)) for i in imports)
    lines = ["| folder | modules | lines | imports from |", "| --- | --- | --- | --- |"]
    sections = []
    for name, paths in sorted(members.items()):
        code = [path for path in paths if path.name != "__init__.py"]
        if not code:
            continue
        total = sum(len(path.read_text().splitlines()) for path in paths)
        uses = ", ".join(sorted(to for at, to in pairs if at == name != to))
        lines.append(f"| `{name}` | {len(code)} | {total} | {uses} |")
        words = [f"| `{path.name}` | {_first_paragraph(path)} |" for path in code]
        first = _first_paragraph(FOLDER.parent / name / "__init__.py")
        table = ["| module | what |", "| --- | --- |", *words]
        sections.append("\n".join([f"## {name}\n", *([f"{first}\n"] if first else []), *table, ""]))
    return "\n".join(
        [
            NOTE,
            "# Modules\n",
            "Imports run one way (the numbers count them). `ingest` and `analysis` never import "
            "each other: they meet in the warehouse. `axes` is the one package installed: "
            "`ingest/jobs.py` is imported as `axes.ingest.jobs`.\n",
            f"```text\n{_floors(list(members), imports)}```\n",
            "\n".join(lines) + "\n",
            *sections,
        ]
    )


def _floors(folders: list[str], imports: list[Import]) -> str:
    """The diagram: each part with its folders, each arrow with its number of imports."""
    counts = Counter((part(i.importer), part(i.imported)) for i in imports)
    inner = {
        name: sorted(
            path.removeprefix(f"{name}/")
            for path in folders
            if path.startswith(f"{name}/") and path.count("/") == 1
        )
        for name in _PARTS
    }
    rows = zip_longest(
        *([name, *(f"  {below}" for below in inner[name])] for name in ("ingest", "analysis")),
        fillvalue="",
    )
    libraries = [f"│ {left:<17} │{' ' * 13}│{' ' * 12}│ {right:<17} │" for left, right in rows]
    return _FLOORS.format(
        axes="axes   " + ", ".join(inner["axes"]),
        warehouse="warehouse   " + ", ".join(inner["warehouse"]),
        libraries="\n".join(libraries),
        **{f"{at}_{to}": counts[at, to] for at, to in product(_PARTS, repeat=2)},
    )


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


def _contents() -> str:
    """Every object of the page by topic: tables by what writes them, views by their folder."""
    topics: dict[str, Iterable[str]] = {
        "Tables of models, prompts and activations": (table.name for table in INGEST_TABLES),
        "Tables of axes and evaluations": (table.name for table in FITTED_TABLES),
        "Tables of completions": (table.name for table in GENERATION_TABLES),
    }
    for path in sorted(path for path in (SQL_FOLDER / "marts").iterdir() if path.is_dir()):
        topics[f"Views: {path.name}"] = sorted(file.stem for file in path.glob("*.sql"))
    topics |= {"Macros": sql_files("macros"), "Checks": check_rules()}
    return "".join(
        f"- **{topic}**: {', '.join(f'[{name}](#{name})' for name in names)}\n"
        for topic, names in topics.items()
    )


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
    """Write docs/cookbook.md."""
    if root is not None:
        record(root)
    (FOLDER / "cookbook.md").write_text(NOTE + cookbook_page())


if __name__ == "__main__":
    main()
