"""Options that every command shares, as decorators."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

Command = Callable[..., Any]

FORMATS = ("table", "json", "csv", "markdown", "parquet")
_SUFFIXES = {".json": "json", ".csv": "csv", ".md": "markdown", ".parquet": "parquet"}


def root_option(command: Command) -> Command:
    """`--root`: the warehouse's folder, passed as a `Path`."""
    return click.option(
        "--root",
        type=click.Path(path_type=Path, file_okay=False),
        default=Path("lake"),
        envvar="AXES_ROOT",
        show_default=True,
        show_envvar=True,
        help="Folder of the warehouse.",
    )(command)


def format_option(command: Command) -> Command:
    """`--format`: how rows are printed."""
    return click.option(
        "--format",
        "output_format",
        type=click.Choice(FORMATS),
        default="table",
        show_default=True,
        help="How rows are printed; parquet needs --output or a pipe.",
    )(command)


def format_for(output: Path | None, output_format: str) -> str:
    """The format that was asked for, or else the one that the output file's suffix names."""
    source = click.get_current_context().get_parameter_source("output_format")
    if output is None or source is not ParameterSource.DEFAULT:
        return output_format
    return _SUFFIXES.get(output.suffix.lower(), output_format)
