"""The `axes` command, and what Python code may import.

The command is a thin click group that mounts the groups below it when they are needed. In Python:

    import axes
    axes.connect("lake").sql("from v_auroc").pl()      # .df(), .to_arrow_table(), .fetchall()
    axes.scan("activations", "lake")                   # a polars LazyFrame
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from warehouse.errors import AxesError

if TYPE_CHECKING:
    import duckdb
    import polars

__all__ = ["AxesError", "connect", "scan"]

# Command -> (module, attribute, one line for --help); modules are imported on use, so that
# `axes --help` imports neither torch nor DuckDB.
_COMMANDS = {
    "study": ("analysis.study_commands", "study", "The whole chain: ingest, fit, align, evaluate."),
    "fit": ("analysis.commands", "fit", "Fit one model's directions on a labelled prompt set."),
    "evaluate": (
        "analysis.judging_commands",
        "evaluate",
        "Judge a model on prompts, layers and sources not seen.",
    ),
    "calibrate": (
        "analysis.judging_commands",
        "calibrate",
        "Put models' projections on one scale, with a threshold.",
    ),
    "transfer": (
        "analysis.judging_commands",
        "transfer",
        "Does a threshold hold on another model?",
    ),
    "score": ("analysis.scoring_commands", "score", "Project stored activations on an axis."),
    "drift": (
        "analysis.drift_commands",
        "drift",
        "Does the projection drift while a model speaks?",
    ),
    "route": ("analysis.routing_commands", "route", "Compare policies of routing between models."),
    "compare": ("analysis.routing_commands", "compare", "Rank models by what they answer."),
    "export": (
        "analysis.exchange_commands",
        "export_command",
        "Write axes to a file of this or another tool.",
    ),
    "import": (
        "analysis.exchange_commands",
        "import_command",
        "Register directions of another tool as axes.",
    ),
    "report": (
        "analysis.commands",
        "report_command",
        "Write a study's tables and charts as one HTML file.",
    ),
    "diagnose": (
        "analysis.diagnose_commands",
        "diagnose",
        "Why the universal axis ranks a study's prompts as it does.",
    ),
    "ingest": ("ingest.commands", "ingest", "Run models and store activations or traces."),
    "activations": (
        "analysis.activation_commands",
        "activations",
        "Activations to files for other tools, and from them.",
    ),
    "import-activations": (
        "analysis.activation_commands",
        "import_activations_command",
        "The same as axes activations import.",
    ),
    "intervene": (
        "analysis.intervene_commands",
        "intervene",
        "Steer a model along axes, and judge what it does.",
    ),
    "monitor": ("ingest.monitor_commands", "monitor", "Show the projection while a model speaks."),
    "label": ("ingest.label_commands", "label", "Label completions: phrases, classifier, judge."),
    "models": ("ingest.model_commands", "models", "List, show and fetch models."),
    "prompts": ("ingest.prompt_commands", "prompts", "Import and list prompt sets."),
    "explore": (
        "warehouse.explore.commands",
        "explore",
        "A local page: SQL with charts, prompts, tokens by projection.",
    ),
    "sql": ("warehouse.commands", "sql", "Run a SQL query over the warehouse."),
    "warehouse": ("warehouse.commands", "warehouse", "Make, check and tend a warehouse."),
}


def connect(root: str | Path | None = None) -> duckdb.DuckDBPyConnection:
    """A DuckDB connection with every table, view and macro of a warehouse.

    `root` defaults to `$AXES_ROOT`, then `./lake`. Results come by DuckDB's own methods:
    `.to_arrow_table()`, `.pl()`, `.df()`, `.fetchall()`. Raises `AxesError` where `root` is not a
    warehouse.
    """
    from warehouse.connection import connect as open_root

    return open_root(_root(root), is_commented=True)


def scan(table: str, root: str | Path | None = None) -> polars.LazyFrame:
    """A polars LazyFrame over one table (`axes.scan("activations")`), partitions typed as text.

    `root` as for `connect`. Raises `AxesError` for an unknown table or root.
    """
    from warehouse.scan import scan as scan_table

    return scan_table(table, _root(root))


def _root(root: str | Path | None) -> Path:
    return Path(root if root is not None else os.environ.get("AXES_ROOT") or "lake")


class _LazyGroup(click.Group):
    """Imports a command's module when it is called, and prints domain errors as one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, attribute, _ = _COMMANDS[cmd_name]
        return getattr(importlib.import_module(module), attribute)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in _COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except AxesError as error:
            raise click.ClickException(str(error)) from error
        except OSError as error:
            place = f"{error.filename}: " if error.filename else ""
            raise click.ClickException(f"{place}{error.strerror or error}") from error
        except KeyboardInterrupt as interrupt:
            click.echo("interrupted: run the same command again to go on from here", err=True)
            raise click.exceptions.Exit(130) from interrupt


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="safety-axes")
def cli() -> None:
    """Do language models share an unsafe direction in activation space?

    Ingest jobs write activations to a warehouse of Parquet files; directions, alignments and a
    universal axis are fitted from it; everything is then SQL.

    \b
    axes prompts import demo_safety
    axes ingest activations smollm2-135m --prompts demo_safety
    axes study --group demo --prompts demo_safety --align demo_alignment
    axes sql "from v_auroc order by model, prompt_set, kind"
    """


def main() -> None:
    """Entry point of the console script."""
    cli.main()
