"""Call a command from Python: in this process, with what it would print as the result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from axes.cli.main import cli
from axes.command_line import find_command, of_call, parameters, typed
from axes.warehouse.errors import AxesError
from axes.warehouse.names import did_you_mean
from axes.warehouse.render import Printed, captured
from axes.warehouse.settings import SETTINGS, invoked, root_folder, setting

if TYPE_CHECKING:
    from axes.results import Result

Folder = str | Path
Names = str | Sequence[str]
# Texts, dicts with a text and a label, or a polars or pandas DataFrame of them.
Rows = Sequence[Any] | Any


def result_of(name: str, arguments: Mapping[str, Any]) -> Result:
    """The rows of the command `name`, called with the arguments of a function."""
    import pyarrow as pa

    from axes.results import Result

    line, printed = call(name, arguments)
    tables = printed.tables or [pa.table({})]
    return Result(
        title=line,
        table=pa.concat_tables(tables, promote_options="default"),
        sql=printed.sql if len(tables) == 1 else None,
        ids=tuple(printed.ids),
        notes=tuple(printed.messages),
        command=name,
        root=root_folder(arguments["root"]),
    )


def call(
    name: str, arguments: Mapping[str, Any], *, written: Mapping[str, str] | None = None
) -> tuple[str, Printed]:
    """The command line and what the command prints, by the names of its `parameters`.

    `options` in the arguments are more of them; `written` says what the command line has in the
    place of a temporary file. The tables of axes.toml for commands do not count: a function's
    defaults are those it shows. Raises `TypeError` for an unknown name, and as the command does.
    """
    stated = {key: value for key, value in arguments.items() if key != "options"}
    stated |= arguments.get("options", {})
    command = find_command(cli, name)
    params = parameters(command)
    for key in stated:
        if key not in params:
            near = did_you_mean(key, params)
            raise TypeError(f"axes {name} has no option {key}{near}: see help(axes) or its --help")
    for key in params.keys() & SETTINGS.keys() - {"format", "root"}:
        stated[key] = setting(key) if stated.get(key) is None else stated[key]
    if isinstance(stated.get("memory_limit"), int):
        stated["memory_limit"] = f"{stated['memory_limit']}B"
    stated |= {"root": root_folder(stated["root"]), "format": "json"}
    stated = {key: value for key, value in stated.items() if _is_stated(params[key], value)}
    line = of_call(cli, name, stated | dict(written or {}))
    try:
        with (
            captured() as printed,
            invoked(lambda: line),
            command.make_context(f"axes {name}", _words(params, stated)) as context,
        ):
            command.invoke(context)
    except click.ClickException as error:
        raise AxesError(error.format_message()) from error
    return line, printed


def _is_stated(param: click.Parameter, value: Any) -> bool:
    """Whether a value is there and not the option's default."""
    default = tuple(param.default) if isinstance(param.default, list) else param.default
    return value is not None and value != () and (param.required or value != default)


def _words(params: Mapping[str, click.Parameter], stated: Mapping[str, Any]) -> list[str]:
    """What is stated as it is typed, arguments last: a text may begin with a dash."""
    words: dict[str, list[str]] = {"option": [], "argument": ["--"]}
    for key, param in params.items():
        if key in stated:
            words[param.param_type_name] += typed(param, stated[key])
    return words["option"] + words["argument"]
