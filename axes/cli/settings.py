"""What `axes.toml` says as the defaults of a command, in the form that click asks for them.

A key of the file sets the options that have its variable; the table `[ingest.activations]` sets
any option of that command, by the option's long name.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click

from axes.warehouse.errors import ConfigError
from axes.warehouse.names import did_you_mean
from axes.warehouse.settings import SETTINGS, ConfigFile, at_file

Defaults = dict[str, Any]


def require_known_tables(files: Sequence[ConfigFile], commands: Iterable[str]) -> None:
    """Raise `ConfigError` for a table that is no command's."""
    for file in files:
        for name in file.tables:
            if name not in commands:
                raise ConfigError(
                    f"{file.path}: [{name}] is no command{did_you_mean(name, commands)}: "
                    "tables are called after commands, such as [ingest.activations]"
                )


def command_defaults(
    path: tuple[str, ...], command: click.Command, files: Sequence[ConfigFile]
) -> Defaults:
    """click's `default_map` of a command and those below it; `path` is its name in words.

    Raises `ConfigError` for a key that is none of the command's options, or a value that its option
    does not take.
    """
    if isinstance(command, click.Group):
        for file in files:
            for name in _table(file, path):
                _require_subcommand(file.path, path, name, command)
        return {
            name: command_defaults((*path, name), inner, files)
            for name, inner in command.commands.items()
        }
    defaults: Defaults = {}
    # The first file goes before the others, and in a file the command's table before the settings.
    for file in reversed(files):
        for option in options(command):
            for key, setting in SETTINGS.items():
                if setting.variable == option.envvar and key in file.settings:
                    defaults[str(option.name)] = _converted(
                        file, key, file.settings[key], command, option
                    )
        named = {option_key(option): option for option in options(command)}
        for key, value in _table(file, path).items():
            option = _named(file, path, key, named)
            where = ".".join((*path, key))
            if isinstance(option.type, click.Path) and isinstance(value, str):
                value = at_file(file.path, value)
            defaults[str(option.name)] = _converted(file, where, value, command, option)
    return defaults


def options(command: click.Command) -> list[click.Option]:
    """The options of a command that a file may set."""
    return [
        param
        for param in command.params
        if isinstance(param, click.Option) and param.expose_value and not param.is_eager
    ]


def option_key(option: click.Option) -> str:
    """How a file calls an option: its long name, with `_` for `-`.

    >>> option_key(click.Option(["-o", "--file-name", "target"]))
    'file_name'
    """
    return max(option.opts, key=len).lstrip("-").replace("-", "_")


def _table(file: ConfigFile, path: tuple[str, ...]) -> dict[str, Any]:
    """The table of a command, empty where the file has none."""
    table: Any = file.tables
    for name in path:
        table = table.get(name, {})
        if not isinstance(table, dict):
            raise ConfigError(f"{file.path}: {name} is a value, expected the table of a command")
    return table


def _require_subcommand(file: Path, path: tuple[str, ...], name: str, command: click.Group) -> None:
    if name not in command.commands:
        raise ConfigError(
            f"{file}: [{'.'.join(path)}] has no command "
            f"{name}{did_you_mean(name, command.commands)}: "
            f"they are {', '.join(command.commands)}, each with a table of its own"
        )


def _named(
    file: ConfigFile, path: tuple[str, ...], key: str, named: dict[str, click.Option]
) -> click.Option:
    plain = key.replace("-", "_")
    if plain not in named:
        raise ConfigError(
            f"{file.path}: axes {' '.join(path)} has no option {key}{did_you_mean(plain, named)}: "
            f"they are {', '.join(named)}"
        )
    return named[plain]


def _converted(
    file: ConfigFile, key: str, value: Any, command: click.Command, option: click.Option
) -> Any:
    """The value, once the option has taken it; a list where it may be given several times."""
    given = [value] if option.multiple and not isinstance(value, list) else value
    try:
        option.type_cast_value(click.Context(command), given)
    except click.UsageError as error:
        raise ConfigError(f"{file.path}: {key}: {error.message}") from error
    return given
