"""Query a warehouse (`axes sql`, `axes explore`), and maintain it (`axes warehouse`)."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import click

from axes.cli.options import (
    AT_LEAST_ZERO,
    COUNT,
    EXISTING_FILE,
    RootPath,
    format_for,
    format_option,
    models_option,
    output_option,
    prints,
    prompt_sets_option,
    root_option,
)
from axes.warehouse.render import echo, show, show_rows

_CATALOG = re.compile("duckdb_|information_schema|pg_", re.IGNORECASE)


@click.command()
@click.argument("statement", required=False)
@click.option("-f", "--file", "path", type=EXISTING_FILE, help="Read the statement from a file.")
@output_option
@click.option("--safe", is_flag=True, help="Allow one read-only select, within limits.")
@root_option
@format_option
def sql(
    statement: str | None,
    path: Path | None,
    output: Path | None,
    safe: bool,
    root: Path,
    output_format: str,
) -> None:
    """Run STATEMENT (DuckDB's SQL) over the tables, views and macros of the warehouse.

    Without a statement, opens a shell on a terminal; in a pipe, reads the statement from stdin.
    Each of several statements, separated by `;`, prints its rows. --output takes its format from
    the file's suffix unless --format is typed. The dot commands of the shell work too.

    \b
    axes sql
    axes sql .tables
    axes sql "select model, prompt_set, kind, auroc from v_auroc order by all"
    axes sql -o p.csv "from v_auroc where study_id = latest_study()"

    Use --safe for a statement that you do not trust: it can read the tables, views and macros but
    no other file, cannot write, and is stopped after 30 s or at 1 GB.
    """
    from axes.warehouse.connection import connect_unlocked, query, split_statements

    if statement is not None and path is not None:
        raise click.UsageError("give a statement, or a file with -f, not both")
    output_format = format_for(output, output_format)
    if path is not None:
        statement = path.read_text()
    elif statement is None and sys.stdin.isatty():
        from axes.sql_shell import run_shell

        if output is not None or safe:
            raise click.UsageError("--output and --safe need a statement, or a file with -f")
        run_shell(root, output_format)
        return
    elif statement is None:
        statement = sys.stdin.read()
        if not statement.strip():
            raise click.UsageError("give a statement, or a file with -f")
    if safe:
        from axes.warehouse.safe import ask

        tables = [ask(root, statement)]
    elif statement.startswith("."):
        from axes.sql_shell import Shell

        Shell(connect_unlocked(root, is_commented=True), output_format).command(statement)
        return
    else:
        # Comments take most of a second to set, and only the catalog shows them.
        connection = connect_unlocked(root, is_commented=_CATALOG.search(statement) is not None)
        tables = [query(connection, each.query) for each in split_statements(statement)]
    tables = [table for table in tables if table.num_columns] or tables[-1:]
    if output is not None and len(tables) > 1:
        raise click.UsageError(f"{len(tables)} statements have rows, and --output takes one")
    for table in tables:
        show(table, output_format, output)


@click.command()
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=0,
    help="Port on this machine; 0 chooses a free one.",
)
@click.option("--no-browser", is_flag=True, help="Print the address without opening a browser.")
@root_option
def explore(port: int, no_browser: bool, root: Path) -> None:
    """Serve a web page of the warehouse: SQL with charts, prompts, tokens by projection.

    The page is read-only and answers only this machine, at the printed address, which changes with
    each start. Texts of the positive class are hidden until clicked. SQL runs as in
    `axes sql --safe`. Over ssh, forward the same port: ssh -L 8600:127.0.0.1:8600.

    \b
    axes explore
    axes explore --root lake --port 8600 --no-browser
    """
    from axes.explore.server import serve

    def tell(address: str) -> None:
        echo(address)
        echo("press Ctrl-C to stop", err=True)
        if not no_browser:
            click.launch(address)

    serve(root, port=port, tell=tell)


@click.group()
def warehouse() -> None:
    """Create, check and maintain a warehouse.

    \b
    axes warehouse init --root lake
    axes warehouse check
    axes warehouse compact
    """


@warehouse.command("init")
@root_option
def init_command(root: Path) -> None:
    """Create a warehouse in a new or empty folder.

    \b
    axes warehouse init --root lake
    """
    from axes.warehouse.storage.store import store_at

    is_new = store_at(root).init()
    echo(f"{root}: {'a new warehouse' if is_new else 'is a warehouse already'}")


@warehouse.command("open")
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--relative",
    "is_relative",
    is_flag=True,
    help="Use paths relative to FILE's folder, so that both can be moved together.",
)
@root_option
def open_command(file: Path | None, is_relative: bool, root: Path) -> None:
    """Write FILE (default warehouse.duckdb in the root) for DuckDB without this code.

    It contains views, macros and comments but no rows: the views read the warehouse's Parquet. Open
    it read-only with the DuckDB CLI, Python, R or a BI tool. With --relative, open it from FILE's
    folder, or `set file_search_path` to that folder first.

    \b
    axes warehouse open
    duckdb -readonly lake/warehouse.duckdb "from v_auroc"
    axes warehouse open --relative lake/warehouse.duckdb
    """
    from axes.warehouse.maintenance.standalone import write_standalone

    echo(write_standalone(root, file, is_relative=is_relative))


@warehouse.command("check")
@click.option("--quick", is_flag=True, help="Check only file sizes and footers.")
@root_option
@format_option
def check_command(quick: bool, root: Path, output_format: str) -> None:
    """Compare every file with the ledger and its checksums, and run the rules of sql/checks.

    Prints each file or rule that fails, what is wrong and what to do; the formats for programs have
    every rule. Exit code 1 if any fails.

    \b
    axes warehouse check
    axes warehouse check --quick --format json
    """
    from axes.warehouse.maintenance.check import check

    result = check(root, is_quick=quick)
    broken = [row for row in result.to_pylist() if row["row_count"]]
    is_for_programs = output_format not in ("table", "markdown")
    if is_for_programs:
        show(result, output_format)
    for row in broken:
        place = f"{row['check']}{': ' if row['path'] else ''}{row['path'] or ''}"
        echo(f"{place}: {row['example']}; {row['to_do']}", err=is_for_programs)
    echo(f"{result.num_rows} checks, {len(broken)} with findings", err=is_for_programs)
    if broken:
        raise click.exceptions.Exit(1)


@warehouse.command("repair")
@click.option(
    "--adopt/--set-aside",
    default=None,
    help="Add intact files that the ledger does not list, or not so; or move them, too.",
)
@click.option("--dry-run", "is_dry_run", is_flag=True, help="Say what would be done, and end.")
@root_option
@format_option
def repair_command(adopt: bool | None, is_dry_run: bool, root: Path, output_format: str) -> None:
    """Move broken files to ROOT/.quarantine, and print the commands that restore their rows.

    The commands are in the column restore, and on stderr in the order to run them. Intact files
    that the ledger does not list are moved only with --set-aside: the ledger may be what is broken.

    \b
    axes warehouse repair --dry-run
    axes warehouse repair
    """
    from axes.warehouse.maintenance.repair import in_order, repair

    done = repair(root, adopt=adopt, is_dry_run=is_dry_run)
    show_rows(done, output_format)
    for command in in_order(done):
        echo(command, err=True)


@warehouse.command("compact")
@click.option("--table", "tables", multiple=True, help="Only this table; repeatable.")
@click.option(
    "--file-mb",
    type=COUNT,
    default=512,
    help="Size of a merged file; files of at least half that size stay as they are.",
)
@root_option
@prints
def compact_command(tables: tuple[str, ...], file_mb: int, root: Path) -> object:
    """Merge the small files of each partition, while readers read and jobs write.

    The old files are kept until `axes warehouse vacuum`.

    \b
    axes warehouse compact
    axes warehouse compact --table activations --file-mb 256
    """
    from axes.warehouse.maintenance.compaction import COMPACTED, compact

    if unknown := set(tables) - set(COMPACTED):
        raise click.UsageError(f"{unknown.pop()} is not compacted: {', '.join(COMPACTED)} are")
    return compact(root, tables or COMPACTED, file_bytes=file_mb << 20)


@warehouse.command("vacuum")
@click.option(
    "--min-age",
    "older_than",
    type=AT_LEAST_ZERO,
    default=1.0,
    help="Delete only files older than this many hours: jobs may still use newer ones.",
)
@click.option("--quarantine", is_flag=True, help="Also empty the quarantine.")
@root_option
@prints
def vacuum_command(older_than: float, quarantine: bool, root: Path) -> object:
    """Delete files that no query reads: temporary, merged, and tokens without a completion.

    \b
    axes warehouse vacuum
    axes warehouse vacuum --min-age 0 --quarantine
    """
    from axes.warehouse.maintenance.vacuum import vacuum

    return vacuum(root, older_than_hours=older_than, empties_quarantine=quarantine)


@warehouse.command("stats")
@root_option
@prints
def stats_command(root: Path) -> object:
    """Count files, row groups, rows and bytes of each table and partition, from footers only.

    \b
    axes warehouse stats
    """
    from axes.warehouse.maintenance.statistics import statistics

    return statistics(root)


@warehouse.command("migrate")
@root_option
@prints
def migrate_command(root: Path) -> object:
    """Migrate a warehouse from an older schema version to this code's. Stop jobs first.

    \b
    axes warehouse migrate --root lake
    """
    from axes.warehouse.maintenance.migration import migrate

    return migrate(root)


@warehouse.command("merge")
@click.argument("sources", nargs=-1, required=True, type=RootPath(file_okay=True))
@root_option
@prints
def merge_command(sources: tuple[Path, ...], root: Path) -> object:
    """Add the rows of the warehouses SOURCES to the root, where their keys are not stored yet.

    Merge what several machines wrote, compacted or not, and again whenever they wrote more.

    \b
    axes warehouse merge node1/lake node2/lake --root lake
    """
    from axes.warehouse.maintenance.merge import merge

    return [item for item in merge(root, sources) if item.rows_added or item.rows_stored]


@warehouse.command("subset")
@click.argument("target", type=RootPath(file_okay=True))
@models_option("Only this model; repeatable.")
@prompt_sets_option("Only this set; repeatable.")
@root_option
@prints
def subset_command(root: Path, target: Path, **options: Any) -> object:
    """Copy models and prompt sets, with the results fitted on them, to the new warehouse TARGET.

    Without --model and --prompts, copies everything. The same selection gives the same bytes.

    \b
    axes warehouse subset shared --model smollm2-135m --prompts demo_safety
    axes warehouse subset backup
    """
    from axes.warehouse.maintenance.subset import subset

    return subset(root, target, **options)


@warehouse.command("forget")
@models_option("Delete this model's rows; repeatable.")
@prompt_sets_option("Delete this prompt set; repeatable.")
@click.option(
    "--pooling", "poolings", multiple=True, help="Delete activations of this pooling; repeatable."
)
@click.option(
    "--study", "studies", multiple=True, help="Delete the results of this study; repeatable."
)
@click.option("--dry-run", "is_dry_run", is_flag=True, help="Count the rows and delete nothing.")
@root_option
@prints
def forget_command(
    models: tuple[str, ...],
    prompt_sets: tuple[str, ...],
    poolings: tuple[str, ...],
    studies: tuple[str, ...],
    is_dry_run: bool,
    root: Path,
) -> object:
    """Delete models, prompt sets, poolings or studies, and everything that was made from them.

    Axes, studies and completions that rest on a deleted row go with it. Stop jobs first; deleted
    rows cannot be restored, so try with --dry-run first.

    \b
    axes warehouse forget --model smollm2-135m --dry-run
    axes warehouse forget --pooling last --study 689eb4
    """
    from axes.analysis.report.section import latest_study
    from axes.warehouse.connection import connect
    from axes.warehouse.maintenance.forget import forget

    if not (models or prompt_sets or poolings or studies):
        raise click.UsageError("name what to delete: --model, --prompts, --pooling or --study")
    forgotten = forget(
        root,
        models=models,
        prompt_sets=prompt_sets,
        poolings=poolings,
        studies=[latest_study(connect(root), name) for name in studies],
        is_dry_run=is_dry_run,
    )
    return [item for item in forgotten if item.rows]
