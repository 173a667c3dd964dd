"""The `axes` command: a thin click group that imports the commands below it when they are used."""

from __future__ import annotations

import importlib
import sys
import time
from typing import Any

import click

from axes.warehouse import progress, settings
from axes.warehouse.errors import AxesError

# Command -> (module, attribute, one line for --help); modules are imported on use, so that
# `axes --help` imports neither torch nor DuckDB.
_COMMANDS = {
    "study": ("axes.cli.study", "study", "The whole chain: ingest, fit, align, evaluate."),
    "fit": ("axes.cli.study", "fit", "Fit one model's directions on a labelled prompt set."),
    "evaluate": (
        "axes.cli.evaluate",
        "evaluate",
        "Judge a model on prompts, layers and sources not seen.",
    ),
    "calibrate": (
        "axes.cli.evaluate",
        "calibrate",
        "Put models' projections on one scale, with a threshold.",
    ),
    "transfer": (
        "axes.cli.evaluate",
        "transfer",
        "Does a threshold hold on another model?",
    ),
    "score": ("axes.cli.evaluate", "score", "Project stored activations on an axis."),
    "drift": (
        "axes.cli.drift",
        "drift",
        "Does the projection drift while a model speaks?",
    ),
    "route": ("axes.cli.route", "route", "Compare policies of routing between models."),
    "compare": ("axes.cli.route", "compare", "Rank models by what they answer."),
    "export": (
        "axes.cli.exchange",
        "export_command",
        "Write axes to a file of this or another tool.",
    ),
    "import": (
        "axes.cli.exchange",
        "import_command",
        "Register directions of another tool as axes.",
    ),
    "report": (
        "axes.cli.study",
        "report_command",
        "Write a study's tables and charts as one HTML file.",
    ),
    "diagnose": (
        "axes.cli.study",
        "diagnose",
        "Why the universal axis ranks a study's prompts as it does.",
    ),
    "ingest": ("axes.cli.ingest", "ingest", "Run models and store activations or traces."),
    "activations": (
        "axes.cli.exchange",
        "activations",
        "Activations to files for other tools, and from them.",
    ),
    "import-activations": (
        "axes.cli.exchange",
        "import_activations_command",
        "The same as axes activations import.",
    ),
    "intervene": (
        "axes.cli.intervene",
        "intervene",
        "Steer a model along axes, and judge what it does.",
    ),
    "monitor": (
        "axes.cli.drift",
        "monitor",
        "Show the projection while a model speaks.",
    ),
    "label": ("axes.cli.label", "label", "Label completions: phrases, classifier, judge."),
    "models": ("axes.cli.ingest", "models", "List, show and fetch models."),
    "prompts": ("axes.cli.ingest", "prompts", "Import and list prompt sets."),
    "explore": (
        "axes.cli.system",
        "explore",
        "A local page: SQL with charts, prompts, tokens by projection.",
    ),
    "sql": ("axes.cli.warehouse", "sql", "Run a SQL query over the warehouse."),
    "warehouse": ("axes.cli.warehouse", "warehouse", "Make, check and tend a warehouse."),
    "doctor": (
        "axes.cli.system",
        "doctor",
        "Examine the installation, the device, the cache and the warehouse.",
    ),
    "config": ("axes.cli.system", "config", "Show settings, and where each comes from."),
    "completion": (
        "axes.cli.system",
        "completion",
        "Print what makes a shell complete commands.",
    ),
}


class _LazyGroup(click.Group):
    """Imports a command's module when it is called, and prints domain errors as one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, attribute, _ = _COMMANDS[cmd_name]
        return getattr(importlib.import_module(module), attribute)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in _COMMANDS and not name.startswith("-"):
            raise click.exceptions.NoSuchCommand(name, possibilities=_COMMANDS, ctx=ctx)
        found, command, rest = super().resolve_command(ctx, args)
        files = () if ctx.resilient_parsing else settings.config_files()
        if files and command is not None:
            from axes.cli.settings import command_defaults, require_known_tables

            require_known_tables(files, _COMMANDS)
            ctx.default_map = {name: command_defaults((name,), command, files)}
        return found, command, rest

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in _COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            is_json = ctx.params["json_log"]
            if settings.setting("json_log") is True if is_json is None else is_json:
                progress.start()
            from axes.cli.command_line import of_context

            with settings.invoked(lambda: of_context(click.get_current_context())):
                return super().invoke(ctx)
        except AxesError as error:
            raise click.ClickException(str(error)) from error
        except OSError as error:
            place = f"{error.filename}: " if error.filename else ""
            raise click.ClickException(f"{place}{error.strerror or error}") from error
        except KeyboardInterrupt as interrupt:
            click.echo("interrupted: run the same command again to go on from here", err=True)
            raise click.exceptions.Exit(130) from interrupt

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """As in click; a JSON log ends with the exit code, and with the command."""
        stderr, started = sys.stderr, time.monotonic()
        try:
            return super().main(*args, **kwargs)
        except SystemExit as end:
            seconds = round(time.monotonic() - started, 3)
            code = end.code or 0
            level = "error" if code else "info"
            progress.record("exit", level=level, exit_code=code, seconds=seconds)
            raise
        finally:
            progress.end(stderr)


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="safety-axes")
@click.option(
    "--json-log/--no-json-log",
    default=None,
    envvar="AXES_JSON_LOG",
    show_envvar=True,
    help="Progress and messages on stderr as JSON, one object a line.",
)
def cli(json_log: bool | None) -> None:
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
