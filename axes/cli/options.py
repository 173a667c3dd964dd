"""Options that every command shares, as decorators.

An option with the variable of one of `axes.warehouse.settings.SETTINGS` is set by axes.toml too.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

Command = Callable[..., Any]

# Python with the libraries of an analysis takes 260 MB before it has read a row.
LEAST_MEMORY = 512_000_000

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


def memory_limit_option(command: Command) -> Command:
    """`--memory-limit`: what the process may take, passed in bytes or as None."""
    return click.option(
        "--memory-limit",
        type=_Bytes(),
        envvar="AXES_MEMORY_LIMIT",
        show_envvar=True,
        help="Memory that the command may take, such as 2GB: matrices that would exceed it are "
        "kept in files below the root. Default: most of the machine's.",
    )(command)


def format_option(command: Command) -> Command:
    """`--format`: how rows are printed."""
    return click.option(
        "--format",
        "output_format",
        type=click.Choice(FORMATS),
        default="table",
        envvar="AXES_FORMAT",
        show_default=True,
        show_envvar=True,
        help="How rows are printed; parquet needs --output or a pipe.",
    )(command)


def format_for(output: Path | None, output_format: str) -> str:
    """The format that was typed, or else the one of the output's suffix, or what is configured."""
    if output is None or is_typed("output_format"):
        return output_format
    return _SUFFIXES.get(output.suffix.lower(), output_format)


def is_typed(name: str) -> bool:
    """Whether a parameter was given with the command, and not by environment or axes.toml."""
    source = click.get_current_context().get_parameter_source(name)
    return source in (ParameterSource.COMMANDLINE, ParameterSource.PROMPT)


class _Bytes(click.ParamType):
    """A number of bytes with a unit: 512MB, 1.5GB (powers of 1,000) or 2GiB (of 1,024)."""

    name = "size"

    def convert(
        self, value: Any, param: click.Parameter | None, context: click.Context | None
    ) -> int:
        matched = re.fullmatch(r"([0-9.]+)\s*([kmgt]?)(i?)b", str(value).strip().lower())
        try:
            number, prefix, binary = matched.groups() if matched else ("", "", "")
            size = float(number) * (1024 if binary else 1000) ** " kmgt".index(prefix or " ")
        except ValueError:
            self.fail(f"{value!r} is not a size such as 512MB or 2GiB", param, context)
        if size < LEAST_MEMORY:
            self.fail(f"{value} is too little: give 512MB or more", param)
        return int(size)
