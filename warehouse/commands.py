"""`axes sql` and `axes warehouse`: ask the warehouse, make one, check it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

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
@click.option("--quick", is_flag=True, help="Sizes and footers only; no contents, no rules.")
@root_option
@format_option
def check_command(quick: bool, root: Path, output_format: str) -> None:
    """Compare every file with the ledger and its checksums, and run the rules of sql/checks.

    Says which file or rule, what is wrong and what to do. Exit 1 if anything is.

    \b
    axes warehouse check
    axes warehouse check --quick --format json
    """
    from warehouse.checks import check
    from warehouse.render import show

    result = check(root, is_quick=quick)
    show(result, output_format)
    if any(result.column("row_count").to_pylist()):
        raise click.exceptions.Exit(1)


@warehouse.command("repair")
@click.option("--adopt", is_flag=True, help="Take sound files in that the ledger does not list.")
@root_option
@format_option
def repair_command(adopt: bool, root: Path, output_format: str) -> None:
    """Move broken files to ROOT/.quarantine, and print the commands that write their rows again.

    \b
    axes warehouse repair
    """
    from warehouse.repairing import repair

    _show_records(repair(root, adopt=adopt), output_format)


def _show_records(records: Sequence[Any], output_format: str) -> None:
    """Print one row for each of some results, which are of one dataclass."""
    import pyarrow as pa

    from warehouse.render import show

    show(pa.Table.from_pylist([asdict(record) for record in records]), output_format)
