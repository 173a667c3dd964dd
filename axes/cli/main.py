"""The `axes` command: a thin click group that imports the commands below it when they are used."""

from __future__ import annotations

import gc
import importlib
import re
import sys
import time
from typing import Any

import click

from axes.command_line import of_context
from axes.warehouse import progress, settings
from axes.warehouse.errors import AxesError
from axes.warehouse.render import echo, one_line, visible

# Section of `axes --help` -> command -> its module in axes.cli and its line of help. Modules are
# imported on use, so that `axes --help` imports neither torch nor DuckDB.
_SECTIONS = {
    "Data": {
        "prompts": ("catalog", "Import prompt sets."),
        "models": ("catalog", "Show, fetch and check models."),
        "list": ("catalog", "List names: axes, studies, models, prompt sets, poolings, ..."),
        "ingest": ("ingest", "Run models and store activations or generation traces."),
        "plan": ("ingest", "The price of an ingest before it runs: bytes, time, money."),
        "activations": ("exchange", "Export activations to other tools, and import theirs."),
        "label": (
            "generation.label",
            "Label completions by phrases, a classifier or an LLM judge.",
        ),
    },
    "Study": {
        "study": ("study", "The whole chain: ingest, fit, align, evaluate."),
        "fit": ("evaluate", "Fit one model's directions on a labelled prompt set."),
        "evaluate": ("evaluate", "Evaluate directions on held-out prompts, layers and sources."),
        "score": ("evaluate", "Project stored activations on an axis."),
        "calibrate": ("evaluate", "Map projections to one scale per model, with a threshold."),
        "transfer": ("evaluate", "Does one model's threshold hold on another model?"),
        "drift": ("generation.drift", "Does the projection change while a model generates?"),
        "diff": ("evaluate", "Compare two versions of a model on the same prompts."),
        "angles": ("evaluate", "Principal angles between two subspaces of one space."),
        "diagnose": ("study", "Find why a model's cosine and AUROC disagree."),
        "explain": ("explain", "Show features, tokens and prompts at the ends of an axis."),
        "report": ("study", "Write a study's tables and charts as one HTML file."),
        "route": ("generation.route", "Compare policies that route prompts between models."),
        "compare": ("generation.route", "Rank models by their completions of the same prompts."),
        "export": ("exchange", "Write axes to a file for this or another tool."),
        "push": ("exchange", "Upload axes with their card to the Hugging Face hub."),
        "log": ("exchange", "Send studies and jobs to Weights & Biases or MLflow."),
        "import": ("exchange", "Register directions from another tool as axes."),
    },
    "Generation": {
        "monitor": ("generation.monitor", "Show each token's projection while a model generates."),
        "intervene": ("generation.intervene", "Steer a model along axes and measure the effect."),
    },
    "Warehouse": {
        "sql": ("warehouse", "Run a SQL query over the warehouse."),
        "explore": ("warehouse", "A local web page: SQL with charts, prompts, tokens."),
        "warehouse": ("warehouse", "Create, check and maintain a warehouse."),
    },
    "System": {
        "doctor": ("system", "Check the installation, device, cache and warehouse."),
        "config": ("system", "Show settings, and where each comes from."),
        "completion": ("system", "Print a shell's completion script."),
    },
}
_COMMANDS = {name: entry for section in _SECTIONS.values() for name, entry in section.items()}

# Exit code after Ctrl-C.
INTERRUPTED = 130

# What the loader and torch say where memory is limited (`ulimit -v`).
_NO_MEMORY = re.compile("failed to map segment|can't allocate memory")


class _LazyGroup(click.Group):
    """Imports a command's module when it is called, and prints domain errors as one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"axes.cli.{_COMMANDS[cmd_name][0]}")
        # `import` and `list` are names of Python's: their functions are `import_` and `list_`.
        return getattr(module, cmd_name, None) or getattr(module, f"{cmd_name}_")

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in _COMMANDS and not name.startswith("-"):
            raise click.exceptions.NoSuchCommand(name, possibilities=_COMMANDS, ctx=ctx)
        found, command, rest = super().resolve_command(ctx, args)
        files = () if ctx.resilient_parsing else settings.config_files()
        if files and command is not None:
            from axes.cli.system import command_defaults, require_known_tables

            require_known_tables(files, _COMMANDS)
            ctx.default_map = {name: command_defaults((name,), command, files)}
        return found, command, rest

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, _COMMANDS))
        for title, commands in _SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl(
                    [(name.ljust(width), text) for name, (_, text) in commands.items()]
                )

    def invoke(self, ctx: click.Context) -> Any:
        try:
            is_json = ctx.params["json_log"]
            if settings.setting("json_log") is True if is_json is None else is_json:
                progress.start()
            with settings.invoked(lambda: of_context(click.get_current_context())):
                return super().invoke(ctx)
        except AxesError as error:
            for note in getattr(error, "__notes__", ()):  # The last line says why.
                echo(note, err=True)
            raise click.ClickException(one_line(error)) from error
        except click.ClickException as error:
            error.message = visible(error.message)  # type: ignore[misc]
            raise
        except RecursionError as error:
            raise click.ClickException(f"a file or value nests too deep: {error}") from error
        except OSError as error:
            place = f"{error.filename}: " if error.filename else ""
            raise click.ClickException(one_line(f"{place}{error.strerror or error}")) from error
        except (MemoryError, ImportError, RuntimeError) as error:
            if not isinstance(error, MemoryError) and not _NO_MEMORY.search(str(error)):
                raise
            message = "the memory that this process may take is used up: free some, or raise the"
            raise click.ClickException(f"{message} limit (ulimit -v)") from error
        except KeyboardInterrupt as interrupt:
            echo("interrupted: run the same command again to go on from here", err=True)
            raise click.exceptions.Exit(INTERRUPTED) from interrupt

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


@click.group(
    cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "show_default": True}
)
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

    `ingest` stores activations as Parquet files, `study` fits directions, alignments and a
    universal axis on them, and `sql` queries activations and results.

    \b
    axes prompts import demo_safety
    axes ingest activations smollm2-135m --prompts demo_safety
    axes study --group demo --prompts demo_safety --align demo_alignment
    axes list axes
    axes sql "from v_auroc order by model, prompt_set, kind"
    """


def main() -> None:
    """Entry point of the console script."""
    try:
        cli.main()
    finally:
        # Else Python searches all modules for garbage before it ends: 0.05 s of processor time.
        gc.freeze()
