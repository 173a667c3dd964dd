"""`axes sql` and `axes warehouse`: ask the warehouse, make one, check it."""

from __future__ import annotations

from pathlib import Path

import click

from warehouse.options import format_option, root_option


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

    \b
    axes sql "show tables"
    axes sql "select model, prompt_set, kind, auroc from v_auroc order by all"
    axes sql --format csv -o p.csv "from v_projections where kind = 'universal'"
    """
    from warehouse.connection import connect, query
    from warehouse.render import show

    if (statement is None) == (path is None):
        raise click.UsageError("give a statement, or a file with -f")
    text = path.read_text() if path is not None else statement
    assert text is not None
    show(query(connect(root), text), output_format, output)


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
