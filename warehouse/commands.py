"""`axes sql` and `axes warehouse`: ask the warehouse, make one, check it."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from warehouse.options import format_for, format_option, root_option


@click.command()
@click.argument("statement", required=False)
@click.option(
    "-f",
    "--file",
    "path",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Read the statement from a file.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write to this file.")
@root_option
@format_option
def sql(
    statement: str | None, path: Path | None, output: Path | None, root: Path, output_format: str
) -> None:
    """Run STATEMENT (DuckDB's SQL) over the tables, views and macros of the warehouse.

    Without a statement on a terminal: a shell; in a pipe, the statement is read from stdin.
    --output takes its format from the file's suffix unless --format says another.

    \b
    axes sql
    axes sql "select model, prompt_set, kind, auroc from v_auroc order by all"
    axes sql -o p.csv "from v_projections where kind = 'universal'"
    """
    from warehouse.connection import connect, query
    from warehouse.render import show

    if statement is not None and path is not None:
        raise click.UsageError("give a statement, or a file with -f, not both")
    if path is not None:
        statement = path.read_text()
    elif statement is None and sys.stdin.isatty():
        from warehouse.shell import run_shell

        if output is not None:
            raise click.UsageError("--output needs a statement, or a file with -f")
        run_shell(root, output_format)
        return
    elif statement is None:
        statement = sys.stdin.read()
        if not statement.strip():
            raise click.UsageError("give a statement, or a file with -f")
    show(query(connect(root), statement), format_for(output, output_format), output)


@click.group()
def warehouse() -> None:
    """Make and check a warehouse.

    \b
    axes warehouse init --root lake
    axes warehouse check
    """


@warehouse.command("init")
@root_option
def init_command(root: Path) -> None:
    """Start a warehouse in an absent or empty folder.

    \b
    axes warehouse init --root lake
    """
    from warehouse.layout import init_root

    made = init_root(root)
    click.echo(f"{root}: {'a new warehouse' if made else 'is a warehouse already'}")


@warehouse.command("open")
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--relative",
    "is_relative",
    is_flag=True,
    help="Paths relative to FILE's folder, so that the two can be moved together.",
)
@root_option
def open_command(file: Path | None, is_relative: bool, root: Path) -> None:
    """Write FILE (default warehouse.duckdb in the root) for DuckDB without this code.

    It holds the views, macros and comments, no rows: views read the warehouse's Parquet. Open it
    with the DuckDB CLI, Python, R or a BI tool, best read-only. With --relative, open it from its
    own folder, or `set file_search_path` to that folder first.

    \b
    axes warehouse open
    duckdb -readonly lake/warehouse.duckdb "from v_auroc"
    axes warehouse open --relative lake/warehouse.duckdb
    """
    from warehouse.standalone import write_standalone

    click.echo(write_standalone(root, file, is_relative=is_relative))


@warehouse.command("check")
@root_option
@format_option
def check_command(root: Path, output_format: str) -> None:
    """Run every query of sql/checks; each returns the rows that break a rule. Exit 1 if any does.

    \b
    axes warehouse check
    """
    from warehouse.checks import check
    from warehouse.render import show

    result = check(root)
    show(result, output_format)
    if any(result.column("row_count").to_pylist()):
        raise click.exceptions.Exit(1)
